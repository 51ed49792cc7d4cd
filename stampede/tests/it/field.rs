//! docs/field-cases.md: failures that others have had with systems of this kind, and the tests that show that they do
//! not happen here. A case that the tests of the parts do not play in full is played below, on real servers and
//! processes.

mod database;
mod ids;
pub mod kafka;
mod late;
mod money;
mod notices;
mod odd;
mod opening;
mod raw;
mod returns;
mod servers;
mod standing;
mod starting;
mod switched;
mod tools;
mod topic;
mod visitor;
mod wire;

use crate::sale::{fresh, in_us, stampede_reason};
use stampede_proto::{
    event::v1::{CreateEventRequest, Event, NewItem},
    order::v1::{NewOrderLine, PlaceOrderRequest},
    r#type::v1::Money,
};
use stampede_testkit::{Mesh, as_buyer, as_operator, buyer, eventually, heavy};
use std::{env, fs, path::PathBuf, time::Duration};

const PAGE: &str = include_str!("../../../docs/field-cases.md");
/// The columns of the table.
const COLUMNS: usize = 4;
const CASES: usize = 30;
/// Folder of the cases below.
const PLAYED: &str = "stampede/tests/it/field";
/// Time until an event of a test opens: the stock must be staged before.
const OPENS_IN: Duration = Duration::from_millis(1_500);

/// The variable that enables the long cases.
const LONG_CASES: &str = "STAMPEDE_TEST_LONG_CASES";

/// Whether the cases are played in their long form.
fn plays_long_cases() -> bool {
    env::var_os(LONG_CASES).is_some()
}

/// Waits for the permit of a long case; returns nothing without the variable, so that a run of all tests ends in time.
async fn long_case(number: usize) -> Option<impl Sized> {
    if !plays_long_cases() {
        println!("case {number}: not played: {LONG_CASES}=1 plays it");
        return None;
    }
    Some(heavy().await)
}

/// A row of the table.
struct Row {
    number: usize,
    /// The file and the name of each test that shows it.
    shown_by: Vec<(&'static str, &'static str)>,
}

impl Row {
    fn read(line: &'static str) -> Self {
        let cells: Vec<&'static str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), COLUMNS, "{line}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "a cell is empty: {line}");
        let number = cells[0].parse::<usize>().unwrap_or_else(|error| panic!("{error}: {line}"));
        let tests = cells[3].split('`').skip(1).step_by(2);
        let shown_by = tests.map(|text| text.split_once("::").unwrap_or_else(|| panic!("no file::test: {text}")));
        Self { number, shown_by: shown_by.collect() }
    }
}

fn rows() -> Vec<Row> {
    let numbered = |line: &&str| line.starts_with("| ") && line.as_bytes().get(2).is_some_and(u8::is_ascii_digit);
    PAGE.lines().filter(numbered).map(Row::read).collect()
}

/// A path of the repository.
fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(name)
}

/// The functions of a source that play a case.
fn played(source: &str) -> impl Iterator<Item = &str> {
    source.split("fn ").skip(1).filter_map(|rest| rest.split('(').next()).filter(|name| name.starts_with("case_"))
}

/// The number in a name such as `case_07_what_holds`.
fn number_of(case: &str) -> usize {
    case.split('_').nth(1).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{case} has no number"))
}

#[test]
fn every_case_has_a_row_and_every_row_has_its_tests() {
    let rows = rows();
    let numbers: Vec<usize> = rows.iter().map(|row| row.number).collect();
    assert_eq!(numbers, (1..=CASES).collect::<Vec<_>>(), "the rows of docs/field-cases.md");
    for Row { number, shown_by } in rows {
        assert!(!shown_by.is_empty(), "nothing shows case {number}");
        for (file, test) in shown_by {
            let source = fs::read_to_string(path(file));
            let source = source.unwrap_or_else(|error| panic!("case {number}: {file}: {error}"));
            assert!(source.contains(&format!("fn {test}(")), "case {number}: {file} has no {test}");
            assert!(!test.starts_with("case_") || number_of(test) == number, "{test} is in the row of case {number}");
        }
    }
}

#[test]
fn every_case_that_is_played_is_in_its_row() {
    let rows = rows();
    let mut count = 0;
    for entry in fs::read_dir(path(PLAYED)).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        for case in played(&source) {
            let row = rows.iter().find(|row| row.number == number_of(case));
            let is_named = row.is_some_and(|row| row.shown_by.iter().any(|(_, test)| *test == case));
            assert!(is_named, "docs/field-cases.md does not name {case}");
            count += 1;
        }
    }
    assert!(count > 0, "no case is found in {PLAYED}");
}

/// An item at this price: so many units, so many a buyer, and no gift.
fn item(unit_price: Option<Money>, total_units: i32, limit_per_buyer: i32) -> NewItem {
    NewItem { title: "a kettle".to_owned(), unit_price, total_units, limit_per_buyer, gift: None }
}

/// A request for an event with this item, which opens soon.
fn wish(item: NewItem) -> CreateEventRequest {
    CreateEventRequest {
        request_id: fresh(),
        name: "a sale".to_owned(),
        open_time: in_us(OPENS_IN),
        close_time: in_us(Duration::from_secs(600)),
        items: vec![item],
    }
}

async fn announced(mesh: &Mesh, item: NewItem) -> Event {
    mesh.event().create_event(as_operator(wish(item))).await.unwrap().into_inner().event.unwrap()
}

/// Waits until it is open: one unit too many is refused for the limit.
async fn until_open(mesh: &Mesh, event: &Event) {
    let item = &event.items[0];
    eventually("the event is open and its stock is staged", || async {
        let request = PlaceOrderRequest {
            request_id: fresh(),
            event_id: event.event_id.clone(),
            lines: vec![NewOrderLine { item_id: item.item_id.clone(), units: item.limit_per_buyer + 1 }],
            ..Default::default()
        };
        let refused = mesh.order().place_order(as_buyer(buyer(), request)).await.unwrap_err();
        (stampede_reason(&refused) == "LIMIT_REACHED").then_some(())
    })
    .await;
}

/// An open event with this item.
async fn on_sale(mesh: &Mesh, item: NewItem) -> Event {
    let event = announced(mesh, item).await;
    until_open(mesh, &event).await;
    event
}

fn micros(at: prost_types::Timestamp) -> i64 {
    at.seconds * 1_000_000 + i64::from(at.nanos) / 1_000
}
