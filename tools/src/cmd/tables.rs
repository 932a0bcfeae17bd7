//! `bedstone tables`.

use std::path::PathBuf;

use bedstone::Database;
use clap::Args;
use serde_json::json;

use crate::cli::Global;
use crate::failure::{Answer, Failure};
use crate::out::Out;
use crate::{bytes, store};

/// List the tables
#[derive(Args)]
#[command(after_help = "Example:\n  bedstone tables places.bed")]
pub(crate) struct Tables {
    /// Directory of the database
    db: PathBuf,
    /// A JSON object a line
    #[arg(long)]
    json: bool,
}

impl Tables {
    pub(crate) fn run(&self, global: &Global) -> Result<Answer, Failure> {
        let db = store::open(global, &self.db)?;
        let done = self.print(&db);
        store::close(db, done.map(|()| Answer::Yes))
    }

    fn print(&self, db: &Database) -> Result<(), Failure> {
        let mut out = Out::new();
        for table in db.tables()? {
            if self.json {
                out.json(&json!({"name": table.name, "id": table.id, "root_page": table.root_page}))?;
            } else {
                out.line(bytes::text(table.name.as_bytes()))?;
            }
        }
        out.finish()
    }
}
