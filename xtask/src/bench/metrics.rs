//! Outcomes of calls, from the `/metrics` of the processes that answered them: the one place where the reason of a
//! refusal is counted, whatever the load generator.

use anyhow::Context;
use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

/// Prefix of the outcomes inside of calls: one call of Reserve answers many reservations.
pub const RESERVATION: &str = "reservation ";

const TIMEOUT: Duration = Duration::from_secs(5);

pub type Outcomes = BTreeMap<String, u64>;

/// Reads how many calls of `method` the processes at these addresses have answered so far, by code or reason, and how
/// many single reservations, which are answered inside of a call.
pub fn outcomes(admins: &[SocketAddr], method: &str) -> anyhow::Result<Outcomes> {
    let mut all = Outcomes::new();
    for admin in admins {
        let text = read(*admin).with_context(|| format!("cannot read http://{admin}/metrics"))?;
        for (outcome, count) in count(&text, method) {
            *all.entry(outcome).or_default() += count;
        }
    }
    Ok(all)
}

/// Reads the gauge of this name at these addresses, summed over its labels and the processes.
pub fn gauge(admins: &[SocketAddr], name: &str) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for admin in admins {
        let text = read(*admin).with_context(|| format!("cannot read http://{admin}/metrics"))?;
        sum += total(&text, name);
    }
    Ok(sum)
}

/// Returns the difference to an earlier reading.
pub fn since(before: &Outcomes, now: &Outcomes) -> Outcomes {
    let new =
        now.iter().map(|(name, count)| (name.clone(), count - before.get(name).copied().unwrap_or(0).min(*count)));
    new.filter(|(_, count)| *count > 0).collect()
}

fn read(address: SocketAddr) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the answer ends with the connection, and comes in one piece.
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    anyhow::ensure!(head.lines().next().is_some_and(|line| line.contains(" 200")), "it does not answer 200");
    Ok(body.to_owned())
}

fn count(text: &str, method: &str) -> Outcomes {
    let mut outcomes = Outcomes::new();
    for line in text.lines() {
        let Some((series, value)) = line.rsplit_once(' ') else { continue };
        let Some((name, labels)) = series.split_once('{') else { continue };
        let outcome = match name {
            "rpc_server_call_duration_seconds_count" if label(labels, "rpc_method") == Some(method) => {
                label(labels, "error_type").or_else(|| label(labels, "rpc_response_status_code")).map(str::to_owned)
            }
            "stampede_reservations_total" if method.ends_with("/Reserve") => label(labels, "outcome").map(reservation),
            _ => None,
        };
        if let (Some(outcome), Ok(value)) = (outcome, value.parse::<u64>()) {
            *outcomes.entry(outcome).or_default() += value;
        }
    }
    outcomes
}

/// The sum of all series of this name.
fn total(text: &str, name: &str) -> f64 {
    let values = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let is_meant = series.split('{').next() == Some(name);
        if is_meant { value.parse::<f64>().ok() } else { None }
    });
    values.sum()
}

/// Returns the name of an outcome inside of a call, so that it is not counted as a call.
fn reservation(outcome: &str) -> String {
    format!("{RESERVATION}{outcome}")
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let quoted = |part: &'a str| part.strip_prefix(name)?.strip_prefix("=\"")?.split('"').next();
    labels.trim_end_matches('}').split(',').find_map(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"# TYPE rpc_server_call_duration_seconds histogram
rpc_server_call_duration_seconds_count{rpc_method="a.B/Reserve",rpc_response_status_code="OK"} 10
rpc_server_call_duration_seconds_count{error_type="NOT_READY",rpc_method="a.B/Reserve",rpc_response_status_code="UNAVAILABLE"} 2
rpc_server_call_duration_seconds_count{rpc_method="a.B/Other",rpc_response_status_code="OK"} 7
stampede_reservations_total{outcome="SOLD_OUT"} 9
"#;

    #[test]
    fn calls_count_by_their_reason_and_reservations_by_their_outcome() {
        let counted = count(PAGE, "a.B/Reserve");
        assert_eq!((counted["OK"], counted["NOT_READY"], counted["reservation SOLD_OUT"]), (10, 2, 9));
        assert_eq!(count(PAGE, "a.B/Other"), Outcomes::from([("OK".to_owned(), 7)]));
    }

    #[test]
    fn a_gauge_is_summed_over_its_labels_and_no_other_is() {
        let page = "# TYPE orders_open gauge\norders_open{state=\"PAYING\"} 2\norders_open{state=\"PAID\"} 3\norders_opened 9\n";
        assert_eq!(total(page, "orders_open"), 5.0);
        assert_eq!(total(page, "orders"), 0.0);
    }

    #[test]
    fn only_new_answers_count() {
        let before = Outcomes::from([("OK".to_owned(), 4), ("SOLD_OUT".to_owned(), 1)]);
        let now = Outcomes::from([("OK".to_owned(), 9), ("SOLD_OUT".to_owned(), 1), ("NOT_READY".to_owned(), 2)]);
        assert_eq!(since(&before, &now), Outcomes::from([("OK".to_owned(), 5), ("NOT_READY".to_owned(), 2)]));
    }
}
