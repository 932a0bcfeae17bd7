//! Running the command on stores in temporary directories.

use std::ffi::OsStr;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value as Json;
use tempfile::TempDir;

/// A temporary directory with room for a database in it.
pub(crate) struct Store {
    dir: TempDir,
    db: PathBuf,
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

/// The command, ready to be given arguments.
pub(crate) fn bedstone() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bedstone"));
    // A small pool is enough here, and temporary directories may lie where direct I/O is refused.
    command.args(["--pool-mib", "8", "--allow-buffered"]);
    command
}

/// Runs a command to its end.
pub(crate) fn run<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Done {
    done(bedstone().args(arguments).stdin(Stdio::null()).output().unwrap())
}

fn done(output: Output) -> Done {
    Done {
        code: output.status.code().unwrap_or(-1),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Done {
    /// Asserts the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", String::from_utf8_lossy(&self.out), self.err);
        self
    }

    /// Asserts that standard error has these words.
    #[track_caller]
    pub(crate) fn says(self, words: &str) -> Self {
        assert!(self.err.contains(words), "{words:?} is not in: {}", self.err);
        self
    }

    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.out.clone()).unwrap()
    }

    /// Lines of standard output, each as JSON.
    #[track_caller]
    pub(crate) fn json_lines(&self) -> Vec<Json> {
        self.text()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// Standard output as one line of JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Json {
        let mut lines = self.json_lines();
        assert_eq!(lines.len(), 1);
        lines.remove(0)
    }
}

impl Store {
    /// A place for a database that is not made yet.
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let db = dir.path().join("t.bed");
        Self { dir, db }
    }

    /// A database with these entries in table `t`.
    pub(crate) fn with(entries: &[(&str, &str)]) -> Self {
        let store = Self::new();
        let lines: String =
            entries.iter().map(|(k, v)| serde_json::json!({"k": k, "v": v}).to_string() + "\n").collect();
        store.load("t", &lines, &["--format", "jsonl", "--key", "k"]).exits(0);
        store
    }

    /// The database.
    pub(crate) fn db(&self) -> &Path {
        &self.db
    }

    /// A file beside the database.
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Runs `command DB arguments...`.
    pub(crate) fn run(&self, command: &str, arguments: &[&str]) -> Done {
        run([OsStr::new(command), self.db.as_os_str()].into_iter().chain(arguments.iter().map(OsStr::new)))
    }

    /// Starts `command DB arguments...` with pipes at all three ends.
    pub(crate) fn start(&self, command: &str, arguments: &[&str]) -> Child {
        bedstone()
            .arg(command)
            .arg(&self.db)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// Runs `load DB table - options...` with `input` as standard input.
    pub(crate) fn load(&self, table: &str, input: impl AsRef<[u8]>, options: &[&str]) -> Done {
        let mut child = self.start("load", &[&[table, "-"], options].concat());
        let mut stdin = child.stdin.take().unwrap();
        // A command that ends early reads no further; what it says tells why.
        let _ = stdin.write_all(input.as_ref());
        drop(stdin);
        done(child.wait_with_output().unwrap())
    }

    /// All entries of a table, as `scan` prints them in hexadecimal.
    pub(crate) fn entries(&self, table: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let done = self.run("scan", &[table, "--format", "hex"]).exits(0);
        let bytes = |text: &str| -> Vec<u8> {
            let digits = text.strip_prefix("0x").unwrap().as_bytes().chunks(2);
            digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
        };
        done.text()
            .lines()
            .map(|line| line.split_once('\t').unwrap())
            .map(|(k, v)| (bytes(k), bytes(v)))
            .collect()
    }
}

/// What a command did that was started with pipes.
pub(crate) fn wait(child: Child) -> Done {
    done(child.wait_with_output().unwrap())
}
