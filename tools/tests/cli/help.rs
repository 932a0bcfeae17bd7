//! Help texts and versions.

use crate::support::run;

const COMMANDS: [&str; 11] =
    ["demo", "load", "get", "put", "delete", "scan", "tables", "stat", "check", "page-dump", "log-dump"];

#[test]
fn the_command_lists_its_commands_and_exit_codes() {
    let help = run(["--help"]).exits(0).text();
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not listed in: {help}");
    }
    assert!(help.contains("Exit codes:") && help.contains("BEDSTONE_IO="));
    assert!(!help.contains("demo-writer"), "the demonstration's own command is nobody's business");
    assert!(run(["--version"]).exits(0).text().starts_with("bedstone "));
}

#[test]
fn every_command_says_what_it_does_with_an_example() {
    for command in COMMANDS {
        let help = run([command, "--help"]).exits(0).text();
        assert!(help.contains(&format!("  bedstone {command}")), "no example in: {help}");
        assert!(help.contains("Example") && help.lines().next().unwrap().len() > 10, "{help}");
        for line in help.lines() {
            assert!(line.chars().count() <= 100, "a line too long for a terminal: {line}");
        }
    }
}

#[test]
fn wrong_calls_exit_with_3_and_help() {
    run::<&str>([]).exits(3).says("Usage");
    run(["no-such-command"]).exits(3).says("no-such-command");
    run(["get", "x.bed", "t"]).exits(3).says("KEY");
    run(["scan", "x.bed", "t", "--prefix", "a", "--from", "b"]).exits(3).says("--from");
    run(["scan", "x.bed", "t", "--format", "xml"]).exits(3).says("utf8");
    run(["scan", "x.bed", "t", "--from", "b", "--to", "a"]).exits(3).says("--from is greater");
    run(["get", "x.bed", "t", "0x1", "--hex-keys"]).exits(3).says("odd number");
    run(["page-dump", "x.bed", "4..2"]).exits(3).says("no pages between");
    run(["page-dump", "x.bed", "--hex"]).exits(3).says("PAGE");
    run(["put", "x.bed", "t", "k"]).exits(3).says("VALUE");
    run(["load", "x.bed", "t", "-"]).exits(3).says("--format");
    run(["load", "x.bed", "t", "cities.jsonl.gz"]).exits(3).says("gunzip -c");
    run(["load", "x.bed", "t", "f.csv", "--batch", "0"]).exits(3).says("--batch");
}
