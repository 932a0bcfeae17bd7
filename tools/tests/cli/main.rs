//! The `bedstone` command from outside: what it prints and with which code it exits.

mod crash_test;
mod demo;
mod dumps;
mod failures;
mod help;
mod load;
mod queries;
mod support;
