//! Sale files that are accepted, and those that are refused with their line.

use crate::Sale;

const GOOD: &str = r#"name = "Night"
opens_in_ms = 4_000
lasts_ms = 10_000
pay_window_ms = 6_000

[[items]]
title = "Shoe"
price = { minor_units = 9900, currency = "EUR" }
units = 10
limit_per_buyer = 2
gift = { title = "Lace", units = 3 }

[campaign]
name = "Early"
quota = 5
discount = { minor_units = 500, currency = "EUR" }
opens_before_ms = 2_000
spread_ms = 1_000

[crowd]
buyers = 50
spread_ms = 2_000
abandon_percent = 5
cancel_percent = 2.5
"#;

fn refusal(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "{from} is not in the good file");
    Sale::parse("sale.toml", &GOOD.replace(from, to)).unwrap_err().to_string()
}

fn assert_refused(from: &str, to: &str, line: usize, says: &str) {
    let text = refusal(from, to);
    assert!(text.starts_with("sale.toml"), "{text}");
    assert!(text.contains(&format!("line {line}")), "line {line} is not named: {text}");
    assert!(text.contains(says), "{says:?} is not said: {text}");
}

#[test]
fn a_good_file_is_taken_with_its_defaults() {
    let sale = Sale::parse("sale.toml", GOOD).unwrap();
    assert_eq!(sale.name.as_str(), "Night");
    assert_eq!(sale.items.get_ref()[0].units.get(), 10);
    assert_eq!(sale.crowd.max_lines_per_order.get_ref().get(), 1);
    assert!((sale.crowd.cancel_percent.get_ref().probability() - 0.025).abs() < 1e-9);
}

#[test]
fn the_examples_are_taken() {
    for example in [
        "examples/flash-sale.toml",
        "examples/rush.toml",
        "examples/compose.toml",
        "examples/restarts.toml",
        "ghz-bench/sale.toml",
    ] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(example);
        Sale::load(&path).unwrap_or_else(|error| panic!("{error}"));
    }
}

/// Returns the keys that the parser lists when it meets an unknown one.
fn keys_beside(known: &str) -> Vec<String> {
    let message = refusal(known, &format!("nonsense = 1\n{known}"));
    let named = message.split_once("expected one of ").unwrap_or_else(|| panic!("no keys in {message}")).1;
    named.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_example_has_every_key_with_a_comment_above_its_first_use() {
    let example = include_str!("../../examples/flash-sale.toml");
    let lines: Vec<&str> = example.lines().collect();
    for known in ["opens_in_ms = 4_000", "units = 10", "quota = 5", "buyers = 50"] {
        for key in keys_beside(known) {
            let starts = [format!("{key} = "), format!("[{key}]"), format!("[[{key}]]")];
            let first = lines.iter().position(|line| starts.iter().any(|start| line.starts_with(start.as_str())));
            let first = first.unwrap_or_else(|| panic!("examples/flash-sale.toml does not have {key}"));
            assert!(lines[first - 1].starts_with("# "), "examples/flash-sale.toml does not explain {key}");
        }
    }
}

#[test]
fn unknown_keys_are_refused_with_their_line() {
    assert_refused("quota = 5", "quotta = 5", 15, "unknown field `quotta`");
    assert_refused("buyers = 50", "buyers = 50\nbots = 3", 22, "unknown field `bots`");
    assert_refused("units = 3 }", "units = 3, colour = 1 }", 11, "unknown field `colour`");
}

#[test]
fn impossible_values_are_refused_with_their_line() {
    assert_refused("quota = 5", "quota = 0", 15, "must be 1 to 10000000, but is 0");
    assert_refused("units = 10", "units = -1", 9, "must be 1 to 10000000, but is -1");
    assert_refused("abandon_percent = 5", "abandon_percent = 101", 23, "0 to 100 percent, but is 101");
    assert_refused("cancel_percent = 2.5", "cancel_percent = -0.5", 24, "0 to 100 percent, but is -0.5");
    assert_refused("cancel_percent = 2.5", "cancel_percent = nan", 24, "0 to 100 percent");
    assert_refused("minor_units = 9900", "minor_units = 0", 8, "but is 0");
    assert_refused("currency = \"EUR\" }\nunits", "currency = \"euro\" }\nunits", 8, "ISO 4217");
    assert_refused("title = \"Shoe\"", "title = \"\"", 7, "1 to 200 characters");
    assert_refused("lasts_ms = 10_000", "lasts_ms = \"long\"", 3, "invalid type");
}

#[test]
fn a_missing_key_is_named() {
    assert!(refusal("buyers = 50\n", "").contains("missing field `buyers`"));
}

#[test]
fn values_that_do_not_go_together_are_refused_with_their_line() {
    assert_refused("limit_per_buyer = 2", "limit_per_buyer = 11", 10, "items[0].limit_per_buyer is 11");
    assert_refused("units = 3 }", "units = 11 }", 11, "items[0].gift.units is 11");
    assert_refused("pay_window_ms = 6_000", "pay_window_ms = 1_500", 4, "must be over 1500");
    assert_refused("opens_before_ms = 2_000", "opens_before_ms = 3_501", 17, "so 3500 at most");
    assert_refused("500, currency = \"EUR\"", "500, currency = \"USD\"", 16, "but the items are in EUR");
    assert_refused("spread_ms = 2_000", "spread_ms = 10_001", 22, "after the close");
    assert_refused("buyers = 50", "buyers = 50\nmax_lines_per_order = 2", 22, "over the 1 items");
    assert_refused("abandon_percent = 5", "abandon_percent = 99", 24, "together are over 100 percent");
}
