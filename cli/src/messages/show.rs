//! `stampede messages show`: everything about one dead letter, and the chain of its key.

use super::{
    decisions::{self, PastDecision},
    id::LetterId,
    letter::{COLUMNS, Row, Summary, letters_table},
    payload::{Payload, hex},
    schemas::{Schemas, Server},
    text::{age, printable, time},
};
use crate::output::{Output, print_json, print_text};
use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use sqlx::FromRow;
use stampede_db::Statement;
use stampede_vocab::Timestamp;
use std::fmt::{self, Display};

/// Most letters of the key that are shown.
const CHAIN: usize = 100;
/// Longest text of foreign origin in the output for people.
const TEXT: usize = 2_000;

/// Show one dead letter: its headers, its payload, the decisions on it, and the letters behind it.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  stampede messages show payment-17
  stampede messages show payment-17 -o json | jq '.payload.decoded'")]
pub struct Args {
    /// Id of the letter, as `messages list` prints it
    #[arg(value_name = "ID")]
    id: LetterId,

    #[command(flatten)]
    server: Server,
}

/// The stored columns beside those of a [`Row`].
#[derive(Debug, FromRow)]
struct Rest {
    record_key: Option<Vec<u8>>,
    source: String,
    message_id: String,
    headers: String,
    payload: Vec<u8>,
    /// Below 0 while it is being sent.
    copied_us: Option<i64>,
    decided_by: Option<String>,
    decided_why: Option<String>,
    decided_us: Option<i64>,
}

/// All stored facts of a letter.
#[derive(Debug, Serialize)]
struct Shown {
    #[serde(flatten)]
    letter: Summary,
    /// CloudEvents source and id.
    source: String,
    message_id: String,
    /// The key of a record that is no message.
    record_key_hex: Option<String>,
    /// Every header, unchanged.
    headers: Value,
    payload: Payload,
    /// When Kafka acknowledged its copy.
    copied_time: Option<String>,
    /// The last decision; none if nobody has decided.
    decided: Option<Decided>,
    /// All decisions, the oldest first. One that the release before has made is in `decided` alone, until the next one.
    decisions: Vec<PastDecision>,
    /// None if its key is not parked.
    parked: Option<Parked>,
    /// The first letters of its key, in any state.
    chain: Vec<Summary>,
    chain_has_more: bool,
}

#[derive(Debug, Serialize)]
struct Decided {
    by: String,
    why: String,
    time: Option<String>,
}

#[derive(Debug, FromRow)]
struct ParkRow {
    from_offset: i64,
    parked_us: i64,
}

/// The parked key, since this time.
#[derive(Debug, Serialize)]
struct Parked {
    from_offset: i64,
    since: String,
}

/// Prints the letter.
pub async fn run(args: Args, output: Output) -> anyhow::Result<()> {
    let schemas = Schemas::new(&args.server);
    let shown = read(&schemas, args.id).await?;
    if output.json { print_json(&shown) } else { print_text(&shown) }
}

/// Reads one letter in short.
pub async fn summary(schemas: &Schemas, id: LetterId, now: Timestamp) -> anyhow::Result<Summary> {
    let rows: Vec<Row> = schemas.read(id.consumer, "dead letters", of_letter(COLUMNS, id)).await?;
    let row = rows.into_iter().next().with_context(|| {
        format!("there is no dead letter {id}: `stampede messages list --state all` prints those there are")
    })?;
    Ok(Summary::of(id.consumer, row, now))
}

fn of_letter(columns: &'static str, id: LetterId) -> Statement {
    let mut query = Statement::concat(["SELECT ", columns, " FROM dead_letters WHERE id = "]);
    query.push_bind(id.row);
    query
}

async fn read(schemas: &Schemas, id: LetterId) -> anyhow::Result<Shown> {
    let now = Timestamp::now();
    let letter = summary(schemas, id, now).await?;
    let columns = "record_key, source, message_id, headers, payload, copied_us, decided_by, decided_why, decided_us";
    let rest: Vec<Rest> = schemas.read(id.consumer, "dead letters", of_letter(columns, id)).await?;
    let rest = rest.into_iter().next().context("the letter has just been removed by hand")?;
    // Read after the last one, which so is among them, unless the release before has made it.
    let decisions = decisions::read(schemas, id).await?;
    let (parked, mut chain) = if letter.is_message() {
        (park(schemas, &letter).await?, chain(schemas, &letter, now).await?)
    } else {
        (None, Vec::new())
    };
    let chain_has_more = chain.len() > CHAIN;
    chain.truncate(CHAIN);
    Ok(Shown {
        source: rest.source,
        message_id: rest.message_id,
        record_key_hex: rest.record_key.as_deref().map(hex),
        // Malformed headers are shown unchanged.
        headers: serde_json::from_str(&rest.headers).unwrap_or(Value::String(rest.headers)),
        payload: Payload::of(&letter.message_type, &rest.payload),
        copied_time: rest.copied_us.filter(|us| *us > 0).map(time),
        decided: rest.decided_by.map(|by| Decided {
            by,
            why: rest.decided_why.unwrap_or_default(),
            time: rest.decided_us.map(time),
        }),
        decisions,
        parked,
        chain,
        chain_has_more,
        letter,
    })
}

async fn park(schemas: &Schemas, letter: &Summary) -> anyhow::Result<Option<Parked>> {
    let mut query = Statement::new("SELECT from_offset, parked_us FROM inbox_parked WHERE topic = ");
    query.push_bind(&letter.topic).push(" AND message_key = ").push_bind(&letter.key);
    let rows: Vec<ParkRow> = schemas.read(letter.consumer, "parked keys", query).await?;
    let parked = |row: ParkRow| Parked { from_offset: row.from_offset, since: time(row.parked_us) };
    Ok(rows.into_iter().next().map(parked))
}

/// Returns the letters of the same key, and one more than are shown if there are.
async fn chain(schemas: &Schemas, letter: &Summary, now: Timestamp) -> anyhow::Result<Vec<Summary>> {
    let mut query = Statement::concat(["SELECT ", COLUMNS, " FROM dead_letters WHERE topic = "]);
    query.push_bind(&letter.topic).push(" AND message_key = ").push_bind(&letter.key);
    query.push(" AND kind <> 'UNREADABLE' ORDER BY id LIMIT ").push_bind(CHAIN + 1);
    let rows: Vec<Row> = schemas.read(letter.consumer, "dead letters", query).await?;
    Ok(rows.into_iter().map(|row| Summary::of(letter.consumer, row, now)).collect())
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = &self.letter;
        writeln!(f, "{}: {}, {}", letter.id, letter.kind, letter.state)?;
        writeln!(f, "message    {} {} of {}", letter.name(), text(&self.message_id), text(&self.source))?;
        writeln!(f, "place      {} {}/{}", letter.topic, letter.partition, letter.offset)?;
        match &self.record_key_hex {
            Some(key) => writeln!(f, "key        {key} (hexadecimal)")?,
            None => writeln!(f, "key        {}", text(&letter.key))?,
        }
        writeln!(f, "set aside  {} ({} ago): {}", letter.set_aside_time, age(letter.age_s), text(&letter.reason))?;
        if let Some(error) = &letter.last_error {
            writeln!(f, "replayed   {} times, the last one failed: {}", letter.attempts, text(error))?;
        }
        self.write_decisions(f)?;
        writeln!(f, "copied     {}", self.copied_time.as_deref().unwrap_or("not yet"))?;
        self.write_headers(f)?;
        self.write_payload(f)?;
        self.write_chain(f)
    }
}

impl Shown {
    fn write_decisions(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for PastDecision { act, by, why, time } in &self.decisions {
            writeln!(f, "decided    {time} {act} by {}: {}", text(by), text(why))?;
        }
        let Some(Decided { by, why, time }) = &self.decided else { return Ok(()) };
        if self.decisions.iter().any(|one| time.as_ref() == Some(&one.time)) {
            return Ok(());
        }
        let time = time.as_deref().unwrap_or("unknown");
        writeln!(f, "decided    {time} by {}: {}", text(by), text(why))
    }

    fn write_headers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "headers")?;
        let Some(headers) = self.headers.as_array() else {
            return writeln!(f, "  {}", text(&self.headers.to_string()));
        };
        for header in headers {
            let part = |name: &str| header[name].as_str();
            let value = part("text").map(str::to_owned).or_else(|| part("hex").map(|hex| format!("0x{hex}")));
            writeln!(f, "  {}: {}", text(part("key").unwrap_or_default()), text(&value.unwrap_or_default()))?;
        }
        Ok(())
    }

    fn write_payload(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "payload ({} bytes)", self.payload.bytes)?;
        if let Some(decoded) = &self.payload.decoded {
            // JSON escapes what could harm a terminal.
            return writeln!(f, "{decoded:#}");
        }
        writeln!(f, "  {}", self.payload.hex.as_deref().unwrap_or_default())
    }

    fn write_chain(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.parked {
            Some(Parked { from_offset, since }) => {
                writeln!(f, "its key is parked since {since}, from offset {from_offset} on; its letters:")?;
            }
            None if self.chain.is_empty() => return write!(f, "nothing waits behind it"),
            None => writeln!(f, "its key is not parked; its letters:")?,
        }
        write!(f, "{}", letters_table(&self.chain))?;
        if self.chain_has_more { write!(f, "\nand more: `messages list --state all --key` has all") } else { Ok(()) }
    }
}

fn text(foreign: &str) -> String {
    printable(foreign, TEXT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::letter::tests::letter;
    use serde_json::json;

    fn decision((by, why, time): (&str, &str, &str)) -> PastDecision {
        let [act, by, why, time] = ["REPLAY", by, why, time].map(str::to_owned);
        PastDecision { act, by, why, time }
    }

    fn shown() -> Shown {
        let letter = letter(7, "PaymentRequested", "ord_1");
        Shown {
            source: "/stampede/order".to_owned(),
            message_id: "m1".to_owned(),
            record_key_hex: None,
            headers: json!([{"key": "ce_id", "text": "m\u{1b}1"}, {"key": "odd", "hex": "ff"}, {"key": "none"}]),
            payload: Payload::of("of.nobody", b"\xff"),
            copied_time: None,
            decided: Some(Decided { by: "ann".to_owned(), why: "mended".to_owned(), time: Some("then".to_owned()) }),
            decisions: [("eve", "too\u{1b}early", "before"), ("ann", "mended", "then")].map(decision).into(),
            parked: Some(Parked { from_offset: 17, since: "noon".to_owned() }),
            chain: vec![letter.clone()],
            chain_has_more: false,
            letter,
        }
    }

    #[test]
    fn everything_is_shown_and_nothing_harms_a_terminal() {
        let text = shown().to_string();
        for part in ["payment-7: POISON, WAITING", "m1 of /stampede/order", "ce_id: m 1", "odd: 0xff", "none: \n"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let decided = "decided    before REPLAY by eve: too early\ndecided    then REPLAY by ann: mended\ncopied ";
        assert!(text.contains(decided) && text.contains("since noon, from offset 17"), "{text}");
        assert!(text.contains("payload (1 bytes)\n  ff") && !text.contains('\u{1b}'), "{text}");
    }

    #[test]
    fn the_last_decision_is_shown_though_the_release_before_has_made_it() {
        let mut shown = shown();
        shown.decisions.pop();
        let text = shown.to_string();
        assert!(text.contains(" by eve: too early\ndecided    then by ann: mended\ncopied "), "{text}");
    }

    #[test]
    fn json_has_the_letter_at_the_top() {
        let json = serde_json::to_value(shown()).unwrap();
        assert_eq!((&json["id"], &json["chain"][0]["id"]), (&"payment-7".into(), &"payment-7".into()));
        assert_eq!((&json["decisions"][0]["by"], &json["decided"]["by"]), (&"eve".into(), &"ann".into()));
        assert_eq!((&json["payload"]["hex"], &json["parked"]["from_offset"]), (&"ff".into(), &17.into()));
    }
}
