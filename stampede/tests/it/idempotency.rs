//! docs/idempotency.md, read row by row and played on a real mesh: the call of the row, its repeat, and another request
//! under the same key. An RPC that writes and has no row fails, and so does a row without a play.

mod logins;
mod plays;

use crate::{
    calls::{Ports, Rpc, rpcs},
    sale::stampede_reason,
};
use http::Method;
use plays::{By, Look, Play};
use prost::Message;
use prost_reflect::DynamicMessage;
use serde_json::Value;
use stampede_testkit::{Mesh, World, as_buyer, as_operator, as_order_service, eventually};
use tonic::{Request, Status};

const PAGE: &str = include_str!("../../../docs/idempotency.md");
/// The columns of the table.
const COLUMNS: usize = 6;
/// Prefixes of the names of RPCs that only read.
const READS: [&str; 4] = ["Get", "List", "LookUp", "Watch"];

/// A row of the table.
#[derive(Debug)]
struct Row {
    /// An RPC such as `order.PlaceOrder`, or a path of the gateway itself such as `POST /v1/auth/tokens`.
    call: &'static str,
    /// The answer to another request under the same key, such as `ALREADY_EXISTS REQUEST_ID_REUSED`.
    other: Option<String>,
}

impl Row {
    fn read(line: &'static str) -> Self {
        let cells: Vec<&'static str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        assert_eq!(cells.len(), COLUMNS, "{line}");
        assert!(cells.iter().all(|cell| !cell.is_empty()), "a cell is empty: {line}");
        let call = quoted(cells[0]).next().unwrap_or_else(|| panic!("names no call: {line}"));
        let codes: Vec<_> = quoted(cells[4]).filter(|text| is_code(text)).collect();
        Self { call, other: (!codes.is_empty()).then(|| codes.join(" ")) }
    }

    fn is_rpc(&self) -> bool {
        !self.call.starts_with("POST ")
    }
}

fn rows() -> Vec<Row> {
    PAGE.lines().filter(|line| line.starts_with("| `")).map(Row::read).collect()
}

/// The texts between backquotes.
fn quoted(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split('`').skip(1).step_by(2)
}

fn is_code(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

fn writes(rpc: &Rpc) -> bool {
    let verb = rpc.name.split('.').nth(1).unwrap();
    let reads = READS.iter().any(|prefix| verb.starts_with(prefix));
    if let Some((method, _)) = &rpc.http {
        assert_eq!(reads, *method == Method::GET, "{} has a name of one kind and a route of the other", rpc.name);
    }
    !reads
}

#[test]
fn every_rpc_that_writes_has_a_row_and_no_other_has() {
    let mut written: Vec<String> = rpcs().into_iter().filter(writes).map(|rpc| rpc.name).collect();
    let mut rows: Vec<String> = rows().into_iter().filter(Row::is_rpc).map(|row| row.call.to_owned()).collect();
    written.sort_unstable();
    rows.sort_unstable();
    assert_eq!(rows, written, "the rows of docs/idempotency.md, and the RPCs that write");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_row_is_as_the_mesh_does() {
    let desk = Desk::open().await;
    for row in rows() {
        let other = if row.is_rpc() { desk.play(row.call).await } else { logins::play(&desk.mesh, row.call).await };
        assert_eq!(other, row.other, "something else under the name of {}", row.call);
    }
    desk.mesh.stop().await.unwrap();
}

/// A mesh, with clients for every call.
struct Desk {
    mesh: Mesh,
    ports: Ports,
    rpcs: Vec<Rpc>,
}

impl Desk {
    async fn open() -> Self {
        let world = World::prepared().await.unwrap();
        let mesh = Mesh::start(&world).await.unwrap();
        Self { ports: Ports::of(&mesh).await, mesh, rpcs: rpcs() }
    }

    /// Calls an RPC with a message as JSON, and returns the answer as JSON.
    async fn call(&self, name: &str, by: By, body: &Value) -> Result<Value, Status> {
        let rpc = self.rpcs.iter().find(|rpc| rpc.name == name).unwrap_or_else(|| panic!("there is no {name}"));
        let message = DynamicMessage::deserialize(rpc.input.clone(), body);
        let message = message.unwrap_or_else(|error| panic!("{name} does not take {body}: {error}"));
        let answer = self.ports.send(rpc, by.says(message.encode_to_vec())).await?;
        let answer = DynamicMessage::decode(rpc.output.clone(), answer.as_slice()).unwrap();
        Ok(serde_json::to_value(&answer).unwrap())
    }

    /// [`Desk::call`] that has to succeed.
    async fn done(&self, name: &str, by: By, body: &Value) -> Value {
        self.call(name, by, body).await.unwrap_or_else(|status| panic!("{name} with {body}: {status:?}"))
    }

    /// Plays the row of an RPC. Returns the answer to another request under the same key.
    async fn play(&self, call: &str) -> Option<String> {
        let play = plays::of(self, call).await;
        let before = self.seen(&play.look).await;
        let first = self.done(call, play.by, &play.body).await;
        let after = self.settled(&play, &before).await;
        assert_eq!(before != after, play.changes, "{call}: from {before:?} to {after:?}");

        let again = self.done(call, play.by, &play.body).await;
        let (first, again) = (found(&first, play.same), found(&again, play.same));
        assert_eq!(first, again, "the answers to {call} and to its repeat");
        assert_eq!(first.is_empty(), play.same.is_empty(), "{call} answers without {:?}", play.same);
        assert_eq!(self.seen(&play.look).await, after, "{call} had an effect again");

        let other = outcome(self.call(call, play.by, play.other.as_ref()?).await);
        if !play.other_changes {
            assert_eq!(self.seen(&play.look).await, after, "something else under the name of {call} had an effect");
        }
        Some(other)
    }

    /// Reads an effect. Stock that was staged a moment ago may not be ready at once.
    async fn seen(&self, look: &Look) -> Vec<Value> {
        eventually(&format!("{} answers", look.rpc), || async {
            let answer = self.call(look.rpc, look.by, &look.body).await.ok()?;
            Some(found(&answer, look.keys))
        })
        .await
    }

    /// Reads the effect once it is final. A change that did not reach Redis with its answer comes a moment later.
    async fn settled(&self, play: &Play, before: &[Value]) -> Vec<Value> {
        eventually(&format!("it is {}", play.settles_as.unwrap_or("changed")), || async {
            let seen = self.seen(&play.look).await;
            let is_final = match play.settles_as {
                Some(last) => seen.iter().any(|value| value == last),
                None => !play.changes || seen != before,
            };
            is_final.then_some(seen)
        })
        .await
    }
}

impl By {
    fn says(self, message: Vec<u8>) -> Request<Vec<u8>> {
        match self {
            Self::Operator => as_operator(message),
            Self::Service => as_order_service(message),
            Self::Buyer(user) => as_buyer(user, message),
        }
    }
}

/// Returns the values of these keys, at any depth.
fn found(answer: &Value, keys: &[&str]) -> Vec<Value> {
    let inner: Box<dyn Iterator<Item = (bool, &Value)>> = match answer {
        Value::Object(fields) => Box::new(fields.iter().map(|(key, value)| (keys.contains(&key.as_str()), value))),
        Value::Array(values) => Box::new(values.iter().map(|value| (false, value))),
        _ => return Vec::new(),
    };
    inner.flat_map(|(is_meant, value)| if is_meant { vec![value.clone()] } else { found(value, keys) }).collect()
}

/// The first value of this key, which is a text.
fn text(answer: &Value, key: &str) -> String {
    let values = found(answer, &[key]);
    values.first().and_then(Value::as_str).unwrap_or_else(|| panic!("{answer} has no {key}")).to_owned()
}

/// Formats an outcome as in the table: the code, and the reason of a refusal.
fn outcome(answer: Result<Value, Status>) -> String {
    match answer {
        Ok(answer) => {
            let refusals = found(&answer, &["reason"]);
            let refusals = refusals.iter().filter_map(Value::as_str);
            ["OK"].into_iter().chain(refusals).collect::<Vec<_>>().join(" ")
        }
        Err(status) => format!("{} {}", code_name(&status), stampede_reason(&status)),
    }
}

/// `FAILED_PRECONDITION` of `FailedPrecondition`.
fn code_name(status: &Status) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", status.code()).chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}
