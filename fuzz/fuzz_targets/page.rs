#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| bedstone_crashtest::fuzz::run("page", data));
