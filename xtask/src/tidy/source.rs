//! Checks the shape of every Rust file, in whatever crate, where clippy has no lint.

use crate::tidy::Finding;

/// A longer file is a design question.
const FILE_LINES: usize = 500;

/// Longest line of a comment, in characters: that of rustfmt, which wraps code and no comments.
const COMMENT_COLUMNS: usize = 120;

/// Levels of the macros that write a line to the log, such as `tracing::warn!`.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Messages that are values, each one of a few whole sentences, with the files that choose them.
const CHOSEN_MESSAGES: [(&str, &str); 2] =
    [("kit/inbox/src/letters.rs", "\"{done}\""), ("kit/outbox/src/meters.rs", "\"{why}\"")];

pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !text.starts_with("//!") {
        findings.push(Finding::new(path, 1, "begin with `//!`: what the module is for, and what it must not do"));
    }
    if text.lines().count() > FILE_LINES {
        findings.push(Finding::new(path, FILE_LINES, format!("longer than {FILE_LINES} lines")));
    }
    if is_kit(path) && !has_example(text) {
        findings.push(Finding::new(path, 1, "a kit begins with an example that compiles: ``` or ```no_run"));
    }
    if is_second_test(path) {
        findings.push(Finding::new(path, 1, "a second program of tests: make it a module of `tests/it`"));
    }
    let rule = "write imports in one block, with one `use` for each crate";
    findings.extend(stray_import(text).map(|line| Finding::new(path, line, rule)));
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("//") && line.chars().count() > COMMENT_COLUMNS {
            findings.push(Finding::new(path, index + 1, format!("a comment of more than {COMMENT_COLUMNS} columns")));
        }
        let log = if call_in(code(line)).is_some() { log_statement(text, index) } else { None };
        let rule = log.and_then(|log| broken_rule(path, &log));
        findings.extend(rule.map(|rule| Finding::new(path, index + 1, rule)));
    }
    findings
}

/// Whether this is the root of a library crate.
fn is_kit(path: &str) -> bool {
    path.starts_with("kit/") && path.ends_with("/src/lib.rs")
}

/// Whether cargo makes a program of tests of this file beside the one of its crate. Each links all that a crate is
/// built from, which takes longer than most tests.
fn is_second_test(path: &str) -> bool {
    let Some((before, rest)) = path.split_once("/tests/") else { return false };
    let is_file = !rest.contains('/');
    let is_folder = rest.strip_suffix("/main.rs").is_some_and(|folder| folder != "it" && !folder.contains('/'));
    let is_unit_test = before.split('/').any(|part| part == "src");
    !is_unit_test && (is_file || is_folder)
}

/// Whether the docs of a crate have code first that is compiled with the tests.
fn has_example(text: &str) -> bool {
    let mut docs = text.lines().take_while(|line| line.starts_with("//!"));
    docs.find(|line| line.starts_with("//! ```")).is_some_and(|fence| ["//! ```", "//! ```no_run"].contains(&fence))
}

/// The line of the first import that stands apart from those before it, or names a crate a second time, in a file or
/// in a module or function inside. Rustfmt sorts imports within a block, and merges none.
fn stray_import(text: &str) -> Option<usize> {
    let (mut crates, mut is_apart, mut is_inside) = (Vec::new(), false, false);
    for (index, line) in text.lines().enumerate() {
        if is_inside {
            is_inside = !line.ends_with(';');
        } else if let Some(import) = line.trim_start().strip_prefix("use ") {
            is_inside = !line.ends_with(';');
            let name = import.split([':', ';', ' ']).next().unwrap_or_default();
            if is_apart || crates.contains(&name) {
                return Some(index + 1);
            }
            crates.push(name);
        } else if line.is_empty() {
            is_apart = !crates.is_empty();
        } else {
            crates.clear();
            is_apart = false;
        }
    }
    None
}

/// A line without its comment. A `//` inside of a string ends it too early, which only ever hides
/// the rest of that one line from the rules.
pub fn code(line: &str) -> &str {
    line.find("//").map_or(line, |comment| &line[..comment])
}

/// The text from the opening parenthesis of its first log macro on.
fn call_in(text: &str) -> Option<&str> {
    text.match_indices("tracing::").find_map(|(at, path)| {
        let named = &text[at + path.len()..];
        let call = LEVELS.iter().find_map(|level| named.strip_prefix(*level)?.strip_prefix('!'));
        call.filter(|call| call.starts_with('('))
    })
}

/// The log macro that begins on this line, from its opening parenthesis to the closing one.
fn log_statement(text: &str, index: usize) -> Option<String> {
    let rest = text.lines().skip(index).collect::<Vec<_>>().join(" ");
    let call = call_in(&rest)?;
    let end = argument_ends(call)?.pop()?;
    Some(call[..=end].to_owned())
}

/// Where the arguments of this call end: at its own commas, and last at its closing parenthesis.
fn argument_ends(call: &str) -> Option<Vec<usize>> {
    let (mut ends, mut depth) = (Vec::new(), 0_usize);
    let (mut is_text, mut is_escaped) = (false, false);
    for (at, c) in call.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = is_text,
            '"' => is_text = !is_text,
            _ if is_text => {}
            '(' | '[' | '{' => depth += 1,
            ',' if depth == 1 => ends.push(at),
            ')' | ']' | '}' if depth == 1 => {
                ends.push(at);
                return Some(ends);
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The arguments of this call, from its opening parenthesis on.
fn arguments(call: &str) -> Vec<&str> {
    let mut begin = 1;
    let cut = argument_ends(call).unwrap_or_default().into_iter().map(|end| {
        let argument = call[begin..end].trim();
        begin = end + 1;
        argument
    });
    cut.collect()
}

/// The rule of logs that this one breaks.
fn broken_rule(path: &str, log: &str) -> Option<&'static str> {
    if names_error_otherwise(log) {
        return Some("an error in a log is the field `error.cause`, neither another one nor part of the message");
    }
    if has_plain_field(log) {
        return Some("a field of a log says of what it is: `<thing>.<what>`");
    }
    if names_count_otherwise(log) {
        return Some("a number of things in a log is the field `<thing>.count`");
    }
    has_value_in_message(path, log).then_some("the message of a log is a fixed text: make its values fields")
}

/// Whether a field has a name without a dot. Reads no further than to the first string or call, behind which a comma
/// may be part of a value.
fn has_plain_field(log: &str) -> bool {
    let fields = log[1..].split(['"', '(']).next().unwrap_or_default().split(',');
    let mut names =
        fields.map(|field| field.split(" = ").next().unwrap_or_default().trim().trim_start_matches(['%', '?']));
    names.any(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'))
}

/// Whether the message has values in it. It is the argument that begins as a text: a field begins with its name.
fn has_value_in_message(path: &str, log: &str) -> bool {
    arguments(log).into_iter().any(|argument| {
        argument.starts_with('"') && argument.contains('{') && !CHOSEN_MESSAGES.contains(&(path, argument))
    })
}

/// Whether a field that is counted on its line, or called a length, is not called a count. A number that was counted
/// before is not seen.
fn names_count_otherwise(log: &str) -> bool {
    arguments(log).into_iter().any(|argument| {
        let Some((name, value)) = argument.split_once(" = ") else { return false };
        let is_counted = value.ends_with(".len()") || value.ends_with(".count()");
        name.ends_with(".len") || is_counted && !name.ends_with(".count")
    })
}

fn names_error_otherwise(log: &str) -> bool {
    let shorthand = [" %error,", "(%error,", " ?error,", "(?error,"].iter().any(|field| log.contains(field));
    shorthand && !log.contains("= %error,")
        || log.contains("{error}")
        || log.contains("{failure}")
        || log.contains("{error:") && !log.contains("format!(\"{error:#}\")")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(path, text).into_iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn a_file_begins_with_its_purpose() {
        assert_eq!(lines("kit/db/src/pool.rs", "use std::fs;"), [1]);
        assert!(lines("kit/db/src/pool.rs", "//! Pools.").is_empty());
    }

    #[test]
    fn a_kit_begins_with_an_example_that_compiles() {
        assert_eq!(lines("kit/db/src/lib.rs", "//! Pools.\nuse std::fs;"), [1]);
        assert_eq!(lines("kit/db/src/lib.rs", "//! Pools.\n//!\n//! ```ignore\n//! f();\n//! ```"), [1]);
        for fence in ["```", "```no_run"] {
            assert!(lines("kit/db/src/lib.rs", &format!("//! Pools.\n//!\n//! {fence}\n//! f();\n//! ```")).is_empty());
        }
        assert!(lines("services/order/src/lib.rs", "//! Orders.").is_empty());
    }

    #[test]
    fn the_tests_of_a_crate_are_one_program() {
        for second in ["kit/db/tests/schema.rs", "lua/tests/stock/main.rs"] {
            assert_eq!(lines(second, "//! Tests."), [1], "{second}");
        }
        let parts = ["it/main.rs", "it/stock.rs", "it/stock/shelf.rs"].map(|part| format!("lua/tests/{part}"));
        for fine in parts.iter().map(String::as_str).chain(["services/order/src/domain/tests/paid.rs"]) {
            assert!(lines(fine, "//! Tests.").is_empty(), "{fine}");
        }
    }

    #[test]
    fn a_long_file_is_found() {
        assert_eq!(lines("a.rs", &format!("//! A.\n{}", "\n".repeat(500))), [500]);
    }

    #[test]
    fn imports_are_one_block_with_one_use_for_each_crate() {
        let found = |imports: &str| lines("a.rs", &format!("//! A.\n\n{imports}\n"));
        for fine in ["use a::b;\nuse std::fs;\n\nfn f() {}", "use a::{\n    b,\n};\nuse c::d;\n\npub use a::e;"] {
            assert!(found(fine).is_empty(), "{fine}");
        }
        assert_eq!(found("use a::b;\n\nuse std::fs;"), [5]);
        assert_eq!(found("use a::b;\nuse a::c;"), [4]);
        assert_eq!(found("use a::{\n    b,\n};\nuse c::d;\nuse a::e;"), [7]);
    }

    #[test]
    fn imports_of_a_module_inside_of_a_file_are_one_block_too() {
        let found = |inside: &str| lines("a.rs", &format!("//! A.\n\nuse a::b;\n\nmod tests {{\n{inside}\n}}\n"));
        for fine in ["    use a::b;\n    use c::d;\n\n    fn f() {}", "    use a::{\n        b,\n    };\n    use c;"] {
            assert!(found(fine).is_empty(), "{fine}");
        }
        assert_eq!(found("    use c::d;\n\n    use super::*;"), [8]);
        assert_eq!(found("    use super::*;\n    use c::d;\n    use c::e;"), [8]);
    }

    #[test]
    fn a_long_comment_is_found() {
        let long = "x".repeat(COMMENT_COLUMNS);
        assert_eq!(lines("a.rs", &format!("//! A.\n    // {long}\nlet a = \"{long}\"; // b")), [2]);
        assert!(lines("a.rs", &format!("//! A.\n// {}", &long[3..])).is_empty());
    }

    #[test]
    fn an_error_in_a_log_has_one_name() {
        let log = |arguments: &str| format!("//! A.\ntracing::warn!({arguments});\n");
        assert!(lines("a.rs", &log("error.cause = %error, \"not sent\"")).is_empty());
        assert!(lines("a.rs", &log("error.cause = format!(\"{error:#}\"), \"not sent\"")).is_empty());
        assert_eq!(lines("a.rs", &log("%error, \"not sent\"")), [2]);
        assert_eq!(lines("a.rs", &log("\"not sent: {error}\"")), [2]);
        assert_eq!(lines("a.rs", &log("\n    %error,\n    \"not sent\"\n")), [2]);
    }

    #[test]
    fn a_field_of_a_log_has_a_dot() {
        let found = |arguments: &str| lines("a.rs", &format!("//! A.\ntracing::info!({arguments});\n"));
        for fine in ["\"sent\"", "order.id = %id, \"sent\"", "page.bytes = longest(a, b, c), \"sent\""] {
            assert!(found(fine).is_empty(), "{fine}");
        }
        for plain in ["count, \"sent\"", "order.id = %id, count = 1, \"sent\"", "?count, \"sent\""] {
            assert_eq!(found(plain), [2], "{plain}");
        }
    }

    #[test]
    fn a_number_of_things_in_a_log_is_a_count() {
        let found = |arguments: &str| lines("a.rs", &format!("//! A.\ntracing::info!({arguments});\n"));
        for fine in ["order.count = due.len(), \"sent\"", "order.count = sent, \"sent\"", "order.id = %id, \"len()\""] {
            assert!(found(fine).is_empty(), "{fine}");
        }
        let others =
            ["batch.len = sent", "batch.len = due.len()", "order.due = f(a, b).len()", "order.due = all.count()"];
        for other in others {
            assert_eq!(found(&format!("event.id = %id, {other}, \"sent\"")), [2], "{other}");
        }
    }

    #[test]
    fn the_message_of_a_log_is_a_fixed_text() {
        let found = |path: &str, level: &str, arguments: &str| {
            lines(path, &format!("//! A.\ntracing::{level}!({arguments});\n"))
        };
        let long = |message: &str| format!("\n    order.age_ms = age.as_millis(),\n    {message}\n");
        for level in LEVELS {
            for fine in ["\"sent\"", "order.ids = format!(\"{a}, {b}\"), \"sent\"", &long("\"sent (again)\"")] {
                assert!(found("a.rs", level, fine).is_empty(), "{fine}");
            }
            for varies in ["\"sent {count}\"", "\"sent {}\", count", "a.b = 1, \"{c}\"", &long("\"sent {id:?}\"")] {
                assert_eq!(found("a.rs", level, varies), [2], "{varies}");
            }
        }
        assert!(found("kit/inbox/src/letters.rs", "error", "\"{done}\"").is_empty());
        assert_eq!(found("kit/inbox/src/letters.rs", "error", "\"{done} twice\""), [2]);
        assert_eq!(found("a.rs", "error", "\"{done}\""), [2]);
    }
}
