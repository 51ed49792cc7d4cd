//! Renders the measurements as an HTML page: a table, and for each way the share of events that is open over time.

use crate::bench::opening::{
    curve::Curve,
    figures::{Figures, Opening, Way},
};
use std::fmt::Write;

/// Size of one drawing, in pixels, without its marks.
const WIDTH: f64 = 560.0;
const HEIGHT: f64 = 160.0;
/// Room for the marks, in pixels.
const MARGIN: f64 = 24.0;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;color:#1d2433}\
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #d8dde6}\
td:first-child,th:first-child{text-align:left}svg{background:#f6f8fb;border-radius:4px}\
polyline{fill:none;stroke:#3b6fd4;stroke-width:2}polyline.cut{stroke:#c2560c}text{font-size:11px;fill:#5a6475}\
section{display:inline-block;margin:1rem 1.5rem 0 0}h2{font-size:1rem}.bad{color:#b3261e;font-weight:600}";

/// The page of a whole run.
pub fn html(figures: &Figures) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Events open on time</title>\
         <style>{STYLE}</style><h1>Events open on time</h1><p>{}</p><table><tr><th>way<th>listener<th>due\
         <th>p50 ms<th>p99 ms<th>max ms<th>early<th>double<th>last first order ms</tr>",
        figures.describe()
    );
    for opening in &figures.openings {
        write(&mut page, &row(opening));
    }
    write(&mut page, "</table>");
    for way in Way::ALL {
        let openings: Vec<&Opening> = figures.openings.iter().filter(|opening| opening.way == way).collect();
        write(&mut page, &format!("<section><h2>{}</h2>{}</section>", way.as_str(), plot(&openings)));
    }
    write(&mut page, "<p>Share of the events that is open over the milliseconds after their time; orange where the ");
    write(&mut page, "listener was cut.</p>");
    page
}

fn row(opening: &Opening) -> String {
    let late = |percent| number(opening.curve.late_ms(percent));
    let wrong = |count: u64| if count > 0 { format!("<span class=\"bad\">{count}</span>") } else { "0".to_owned() };
    format!(
        "<tr><td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}<td>{}</tr>",
        opening.way.as_str(),
        opening.listener(),
        opening.curve.total,
        late(50),
        late(99),
        late(100),
        wrong(opening.early),
        wrong(opening.double),
        number(opening.last_first_order_ms()),
    )
}

/// Formats a figure, or its absence.
pub fn number(figure: Option<f64>) -> String {
    figure.map_or_else(|| "never".to_owned(), |figure| format!("{figure:.1}"))
}

/// The curves of one way in one drawing.
fn plot(openings: &[&Opening]) -> String {
    let last = openings.iter().flat_map(|opening| opening.curve.looks.last()).map(|look| look.late_ms);
    let longest = last.fold(1.0, f64::max);
    let mut svg = format!("<svg width=\"{}\" height=\"{}\" role=\"img\">", WIDTH + MARGIN, HEIGHT + MARGIN);
    for opening in openings {
        let class = if opening.is_cut { "cut" } else { "" };
        let points = points(&opening.curve, longest);
        write(&mut svg, &format!("<polyline class=\"{class}\" points=\"{points}\"/>"));
    }
    for share in [0.0, 0.5, 1.0] {
        let (x, y) = (share * WIDTH, HEIGHT + 16.0);
        write(&mut svg, &format!("<text x=\"{x:.0}\" y=\"{y:.0}\">{:.0}</text>", share * longest));
    }
    svg + "</svg>"
}

/// A step for each poll: the share is constant until the next one.
fn points(curve: &Curve, longest: f64) -> String {
    let mut points = format!("0,{HEIGHT}");
    let mut before = HEIGHT;
    for look in curve.looks.iter().filter(|look| look.late_ms >= 0.0) {
        #[expect(clippy::cast_precision_loss, reason = "a count of events is far below 2^52")]
        let left = look.left as f64 / curve.total.max(1) as f64;
        let (x, y) = (look.late_ms / longest * WIDTH, left * HEIGHT);
        write(&mut points, &format!(" {x:.1},{before:.1} {x:.1},{y:.1}"));
        before = y;
    }
    points
}

fn write(page: &mut String, text: &str) {
    page.write_str(text).expect("a String takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::opening::curve::Look;

    #[test]
    fn a_page_has_a_row_for_each_opening_and_marks_faults() {
        let looks = vec![Look { late_ms: -1.0, left: 10 }, Look { late_ms: 12.0, left: 0 }];
        let opening = |way, early| Opening {
            way,
            is_cut: early > 0,
            curve: Curve { total: 10, looks: looks.clone() },
            first_orders_ms: vec![Some(3.0), None],
            early,
            double: 0,
        };
        let openings = vec![opening(Way::Product, 0), opening(Way::Naive, 7)];
        let page = html(&Figures { openings, ..Figures::default() });
        assert_eq!(page.matches("<polyline").count(), 2);
        assert!(page.contains("class=\"bad\">7<") && page.contains("12.0"), "{page}");
        assert!(page.contains("0,160 560.0,160.0 560.0,0.0"), "{page}");
    }
}
