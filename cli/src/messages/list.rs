//! `stampede messages list`: the dead letters of all services, a page at a time.

use super::{
    filter::{Filter, Wanted},
    id::LetterId,
    letter::{COLUMNS, Row, Summary, letters_table},
    schemas::{Schemas, Server},
};
use crate::output::{Output, print_json, print_text};
use clap::ValueEnum;
use serde::Serialize;
use stampede_db::Statement;
use stampede_vocab::{Service, Timestamp};

/// List dead letters, those of one service after those of another, each in the order in which they were set aside.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  stampede messages list
  stampede messages list --consumer payment --older-than 15m
  stampede messages list --state all --key ord_01j9z4n5k6m7p8q9r0s1t2v3w4 -o json | jq '.letters[].reason'")]
pub struct Args {
    #[command(flatten)]
    filter: Filter,

    /// Only those in this state
    #[arg(long, value_enum, value_name = "STATE", default_value_t = StateFilter::Open)]
    state: StateFilter,

    /// Most of them to print
    #[arg(long, value_name = "COUNT", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    limit: u32,

    /// Only those behind this one, which was the last of the page before
    #[arg(long, value_name = "ID")]
    after: Option<LetterId>,

    #[command(flatten)]
    server: Server,
}

/// The state of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum StateFilter {
    /// Not done with: WAITING or REPLAY
    Open,
    /// Nobody has decided
    Waiting,
    /// To be replayed, or being so
    Replay,
    /// Applied since
    Replayed,
    /// Skipped for good
    Discarded,
    /// In any state
    All,
}

impl StateFilter {
    const fn condition(self) -> &'static str {
        match self {
            Self::Open => " AND state IN ('WAITING', 'REPLAY')",
            Self::Waiting => " AND state = 'WAITING'",
            Self::Replay => " AND state = 'REPLAY'",
            Self::Replayed => " AND state = 'REPLAYED'",
            Self::Discarded => " AND state = 'DISCARDED'",
            Self::All => "",
        }
    }
}

/// A page of dead letters.
#[derive(Debug, Serialize)]
struct Page {
    letters: Vec<Summary>,
    /// The value of `--after` for the next page; none on the last.
    next_after: Option<LetterId>,
}

/// Prints a page.
pub async fn run(args: Args, output: Output) -> anyhow::Result<()> {
    let now = Timestamp::now();
    let wanted = args.filter.resolve(&args.server.kafka_topic_prefix, now)?;
    let schemas = Schemas::new(&args.server);
    let page = read(&schemas, &wanted, &args, now).await?;
    if output.json {
        return print_json(&page);
    }
    if page.letters.is_empty() {
        return print_text("no dead letters");
    }
    print_text(letters_table(&page.letters))?;
    match page.next_after {
        Some(last) => print_text(format_args!("there are more: --after {last}")),
        None => Ok(()),
    }
}

async fn read(schemas: &Schemas, wanted: &Wanted, args: &Args, now: Timestamp) -> anyhow::Result<Page> {
    let most = args.limit as usize;
    let mut letters = Vec::new();
    for consumer in wanted.consumers() {
        let Some(after) = after(args.after, consumer) else { continue };
        let missing = most + 1 - letters.len();
        let mut query = Statement::concat(["SELECT ", COLUMNS, " FROM dead_letters WHERE id > "]);
        query.push_bind(after).push(args.state.condition());
        wanted.push(&mut query);
        query.push(" ORDER BY id LIMIT ").push_bind(missing);
        let rows: Vec<Row> = schemas.read(consumer, "dead letters", query).await?;
        letters.extend(rows.into_iter().map(|row| Summary::of(consumer, row, now)));
        if letters.len() > most {
            break;
        }
    }
    Ok(page(letters, most))
}

/// Returns the row after which a consumer's letters are listed; `None` if all of them were on earlier pages.
fn after(last: Option<LetterId>, consumer: Service) -> Option<i64> {
    match last {
        Some(last) if consumer < last.consumer => None,
        Some(last) if consumer == last.consumer => Some(last.row),
        _ => Some(0),
    }
}

/// Returns the page of these letters, which are one more than `most` if there is a next page.
fn page(mut letters: Vec<Summary>, most: usize) -> Page {
    let is_last = letters.len() <= most;
    letters.truncate(most);
    let last = letters.last().map(|letter| letter.id);
    Page { letters, next_after: last.filter(|_| !is_last) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::letter::tests::letter;

    #[test]
    fn a_page_goes_on_where_the_last_one_ended() {
        let last = Some(LetterId { consumer: Service::Order, row: 7 });
        assert_eq!(after(last, Service::Inventory), None);
        assert_eq!(after(last, Service::Order), Some(7));
        assert_eq!(after(last, Service::Payment), Some(0));
        assert_eq!(after(None, Service::Coupon), Some(0));
    }

    #[test]
    fn only_a_page_with_more_behind_it_says_where_to_go_on() {
        let letters = || (1..=3).map(|row| letter(row, "PaymentRequested", "ord_1")).collect();
        let two = page(letters(), 2);
        assert_eq!((two.letters.len(), two.next_after.map(|id| id.row)), (2, Some(2)));
        let three = page(letters(), 3);
        assert_eq!((three.letters.len(), three.next_after), (3, None));
    }
}
