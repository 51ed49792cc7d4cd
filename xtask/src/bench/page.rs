//! Renders the measurements as an HTML page: a table, and the latencies of each plan as bars.

use crate::bench::ghz::Played;
use std::fmt::Write;

/// Size of one drawing, in pixels.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 120.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;color:#1d2433}\
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #d8dde6}\
td:first-child,th:first-child,td:last-child,th:last-child{text-align:left}\
svg{background:#f6f8fb;border-radius:4px}rect{fill:#3b6fd4}text{font-size:11px;fill:#5a6475}\
section{display:inline-block;margin:1rem 1.5rem 0 0}h2{font-size:1rem}.bad{color:#b3261e;font-weight:600}";

/// The page of a whole run.
pub fn html(played: &[Played]) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Stampede under ghz</title><style>{STYLE}</style>\
         <h1>Stampede under ghz</h1><table><tr><th>plan<th>calls<th>per s<th>p50 ms<th>p99 ms\
         <th>processor, us a call<th>outcomes</tr>"
    );
    for one in played {
        write(&mut page, &row(one));
    }
    write(&mut page, "</table>");
    for one in played {
        write(&mut page, &format!("<section><h2>{}</h2>{}</section>", one.plan, bars(&one.histogram)));
    }
    page
}

fn row(one: &Played) -> String {
    let outcome = |(name, count): (&String, &u64)| {
        let class = if one.unexpected.contains(name) { "bad" } else { "" };
        format!("<span class=\"{class}\">{name} {count}</span>")
    };
    let outcomes = one.outcomes.iter().map(outcome).collect::<Vec<_>>().join(", ");
    let cpu: f64 = one.cpu_us_per_call.values().sum();
    format!(
        "<tr><td>{}<td>{}<td>{:.0}<td>{:.1}<td>{:.1}<td>{cpu:.0}<td>{outcomes}</tr>",
        one.plan, one.calls, one.per_s, one.p50_ms, one.p99_ms
    )
}

/// Calls by their latency: each bar is of those up to its mark.
fn bars(histogram: &[(f64, u64)]) -> String {
    let most = histogram.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    #[expect(clippy::cast_precision_loss, reason = "a few bars, and counts of calls")]
    let (most, width) = (most as f64, WIDTH / histogram.len().max(1) as f64);
    let mut svg = format!("<svg width=\"{WIDTH}\" height=\"{}\" role=\"img\">", HEIGHT + 18.0);
    let mut x = 0.0;
    for (mark_ms, count) in histogram {
        #[expect(clippy::cast_precision_loss, reason = "a count of calls is far below 2^52")]
        let height = *count as f64 / most * HEIGHT;
        let (y, inner) = (HEIGHT - height, width - 2.0);
        write(
            &mut svg,
            &format!(
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{inner:.1}\" height=\"{height:.1}\"><title>up to {mark_ms:.1} \
                 ms: {count} calls</title></rect><text x=\"{x:.1}\" y=\"{}\">{mark_ms:.1}</text>",
                HEIGHT + 14.0
            ),
        );
        x += width;
    }
    svg + "</svg>"
}

fn write(page: &mut String, text: &str) {
    page.write_str(text).expect("a String takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn a_page_shows_every_plan_and_marks_unexpected_outcomes() {
        let played = Played {
            plan: "get-order.open".into(),
            calls: 10,
            per_s: 5.0,
            p50_ms: 1.0,
            p99_ms: 2.0,
            outcomes: BTreeMap::from([("OK".into(), 9), ("INTERNAL".into(), 1)]),
            unexpected: vec!["INTERNAL".into()],
            cpu_us_per_call: BTreeMap::from([("order".into(), 31.0)]),
            memory_bytes: BTreeMap::from([("order".into(), 30_000_000)]),
            histogram: vec![(1.0, 9), (2.0, 1)],
        };
        let page = html(&[played]);
        assert!(page.contains("get-order.open") && page.contains("class=\"bad\">INTERNAL 1"), "{page}");
        assert_eq!(page.matches("<rect").count(), 2);
    }
}
