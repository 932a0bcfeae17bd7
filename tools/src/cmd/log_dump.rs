//! `bedstone log-dump`.

use std::path::PathBuf;

use bedstone::inspect::{Inspector, LogBody, LogEntry, LogOp};
use clap::Args;
use serde_json::{Map, Value as Json, json};

use crate::bytes;
use crate::failure::{Answer, Failure};
use crate::out::Out;

/// Characters of a key or value that the text form shows.
const SHOWN: usize = 60;

/// Print the records of the redo log
///
/// Reads the log without opening the database: nothing is recovered, written or locked. Begins where recovery would
/// begin, or at --from, and ends where the log ends, saying why it ends there: a torn tail is what a crash leaves,
/// damage is not. Exits with 1 when the log is damaged.
#[derive(Args)]
#[command(after_help = "Examples:\n  \
    bedstone log-dump places.bed | head\n  \
    bedstone log-dump places.bed --json | jq 'select(.kind == \"writes\") | .ops | length'")]
pub(crate) struct LogDump {
    /// Directory of the database
    db: PathBuf,
    /// Begin at this record, given by its LSN
    #[arg(long, value_name = "LSN")]
    from: Option<u64>,
    /// At most so many records; how the log ends is then not told
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// A JSON object a line: for each record, then one for the end
    #[arg(long)]
    json: bool,
}

impl LogDump {
    pub(crate) fn run(&self) -> Result<Answer, Failure> {
        let inspector = Inspector::open(&self.db)?;
        let mut log = inspector.log(self.from)?;
        let mut out = Out::new();
        let mut clean = true;
        let mut left = self.limit.unwrap_or(u64::MAX);
        loop {
            if left == 0 {
                break;
            }
            left -= 1;
            let Some(entry) = log.next_entry()? else {
                let end = log.end()?;
                clean &= end.damage.is_none();
                if self.json {
                    out.json(&json!({"end": end.lsn, "reason": end.reason, "damage": end.damage}))?;
                } else {
                    out.line(format_args!("the log ends at lsn {}: {}", end.lsn, end.reason))?;
                    if let Some(damage) = end.damage {
                        out.line(format_args!("DAMAGE: {damage}"))?;
                    }
                }
                break;
            };
            clean &= !matches!(entry.body, LogBody::Unreadable { .. });
            if self.json { out.json(&entry_json(&entry))? } else { print_entry(&entry, &mut out)? }
        }
        out.finish()?;
        Ok(if clean { Answer::Yes } else { Answer::No })
    }
}

/// Name and details of a record's content.
fn describe(body: &LogBody) -> (&'static str, String) {
    match body {
        LogBody::Writes { unix_ms, ops } => {
            ("writes", format!("{} writes, at {}", ops.len(), time(*unix_ms)))
        }
        LogBody::Fragment { transaction, bytes } => {
            ("fragment", format!("of the transaction at lsn {transaction}, {bytes} bytes"))
        }
        LogBody::Commit { unix_ms, transaction, fragments, bytes } => (
            "commit",
            format!(
                "of the transaction at lsn {transaction}: {fragments} fragments, {bytes} bytes, at {}",
                time(*unix_ms)
            ),
        ),
        LogBody::CreateTable { unix_ms, table, name } => {
            ("create-table", format!("{name:?}, id {table}, at {}", time(*unix_ms)))
        }
        LogBody::DropTable { unix_ms, table } => ("drop-table", format!("id {table}, at {}", time(*unix_ms))),
        LogBody::RenameTable { unix_ms, table, name } => {
            ("rename-table", format!("id {table} to {name:?}, at {}", time(*unix_ms)))
        }
        LogBody::Unreadable { detail } => ("unreadable", format!("DAMAGE: {detail}")),
        _ => ("unknown", String::new()),
    }
}

fn print_entry(entry: &LogEntry, out: &mut Out) -> Result<(), Failure> {
    let (name, details) = describe(&entry.body);
    out.line(format_args!(
        "lsn {:<12} {name} {details} [to lsn {}, opening {}, durable to {}, payload {} bytes]",
        entry.lsn, entry.end, entry.opening, entry.durable_lsn, entry.payload_bytes
    ))?;
    if let LogBody::Writes { ops, .. } = &entry.body {
        for LogOp { table, key, value, .. } in ops {
            let key = bytes::short_text(key, SHOWN);
            match value {
                Some(value) => {
                    out.line(format_args!("  put     {table} {key} = {}", bytes::short_text(value, SHOWN)))?;
                }
                None => out.line(format_args!("  delete  {table} {key}"))?,
            }
        }
    }
    Ok(())
}

fn entry_json(entry: &LogEntry) -> Json {
    let mut object = Map::new();
    let mut put = |name: &str, value: Json| object.insert(name.into(), value);
    put("lsn", entry.lsn.into());
    put("next_lsn", entry.end.into());
    put("kind", describe(&entry.body).0.into());
    put("kind_byte", entry.kind.into());
    put("opening", entry.opening.into());
    put("durable_lsn", entry.durable_lsn.into());
    put("payload_bytes", entry.payload_bytes.into());
    match &entry.body {
        LogBody::Writes { unix_ms, ops } => {
            put("unix_ms", json!(unix_ms));
            put("ops", ops.iter().map(op_json).collect());
        }
        LogBody::Fragment { transaction, bytes } => {
            put("transaction", json!(transaction));
            put("bytes", json!(bytes));
        }
        LogBody::Commit { unix_ms, transaction, fragments, bytes } => {
            put("unix_ms", json!(unix_ms));
            put("transaction", json!(transaction));
            put("fragments", json!(fragments));
            put("bytes", json!(bytes));
        }
        LogBody::CreateTable { unix_ms, table, name } | LogBody::RenameTable { unix_ms, table, name } => {
            put("unix_ms", json!(unix_ms));
            put("table", json!(table));
            put("name", json!(name));
        }
        LogBody::DropTable { unix_ms, table } => {
            put("unix_ms", json!(unix_ms));
            put("table", json!(table));
        }
        LogBody::Unreadable { detail } => drop(put("detail", json!(detail))),
        _ => {}
    }
    Json::Object(object)
}

fn op_json(op: &LogOp) -> Json {
    let mut object = Map::new();
    object.insert("op".into(), if op.value.is_some() { "put" } else { "delete" }.into());
    object.insert("table".into(), op.table.into());
    bytes::put_json(&mut object, "key", &op.key);
    if let Some(value) = &op.value {
        bytes::put_json(&mut object, "value", value);
    }
    Json::Object(object)
}

/// A moment as date and time in UTC, `2026-01-31T12:34:56.789Z`. The date comes from the days since 1970 by counting
/// in eras of 400 years that begin in March (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn time(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + 400 * era + u64::from(month <= 2);
    let (seconds, ms) = (ms / 1000, ms % 1000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::time;

    #[test]
    fn moments() {
        assert_eq!(time(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(time(951_782_399_999), "2000-02-28T23:59:59.999Z");
        assert_eq!(time(951_782_400_000), "2000-02-29T00:00:00.000Z");
        assert_eq!(time(1_735_689_599_000), "2024-12-31T23:59:59.000Z");
        assert_eq!(time(4_107_542_400_000), "2100-03-01T00:00:00.000Z");
    }
}
