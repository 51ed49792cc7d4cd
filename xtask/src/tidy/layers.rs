//! The dependencies inside a service: main -> lib -> {rpc, worker} -> usecase -> {store, client, provider} -> messages
//! -> domain. A text scan, which is enough for a rule that nobody tries to evade.

use crate::tidy::{Finding, source::code};

/// The layers from the bottom up; those of one rank stand side by side. `messages` encodes and decodes Kafka records,
/// `client` and `provider` call other processes.
const LAYERS: [(&str, u8); 8] = [
    ("domain", 0),
    ("messages", 1),
    ("client", 2),
    ("provider", 2),
    ("store", 2),
    ("usecase", 3),
    ("rpc", 4),
    ("worker", 4),
];

/// Words that a layer may not write, and why.
const FORBIDDEN: [(&str, &[&str], &str); 3] = [
    (
        "domain",
        &[
            "async ",
            ".await",
            "tokio",
            "sqlx",
            "tonic",
            "rdkafka",
            "stampede_proto",
            "stampede_db",
            "stampede_lua",
            "Timestamp::now",
        ],
        "domain is states and transitions: no async, no I/O, no contract types, and time is an argument",
    ),
    ("usecase", &["stampede_proto"], "only rpc, worker, client and messages touch contract types"),
    ("store", &["stampede_proto"], "only rpc, worker, client and messages touch contract types"),
];

/// Words that only `store` may write.
pub const SQL: [&str; 5] = ["sqlx::query", "raw_sql", "QueryBuilder", "Statement::new", "Statement::concat"];

/// The type that makes SQL of any text. Not even `store` may write it.
const SQL_OF_TEXT: (&str, &str) = ("AssertSqlSafe", "SQL text is part of the program, and values are bound");

/// Checks one file, if it belongs to a service.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let Some(inside) = inside_service(path) else { return Vec::new() };
    let mut findings = Vec::new();
    if inside == "main.rs" {
        findings.push(Finding::new(path, 1, "a service is a library: the one program, stampede, serves it"));
    }
    let layer = inside.split(['/', '.']).next().unwrap_or_default();
    for (index, line) in text.lines().enumerate() {
        let line = code(line);
        findings.extend(forbidden_words(layer, line).map(|rule| Finding::new(path, index + 1, rule)));
    }
    for (line, used) in crate_paths(text) {
        if let Some(rule) = wrong_arrow(layer, used) {
            findings.push(Finding::new(path, line, rule));
        }
    }
    findings
}

/// The path below `services/NAME/src/`.
fn inside_service(path: &str) -> Option<&str> {
    let (_, rest) = path.strip_prefix("services/")?.split_once('/')?;
    rest.strip_prefix("src/")
}

fn forbidden_words(layer: &str, line: &str) -> impl Iterator<Item = String> {
    let own = FORBIDDEN.iter().filter(move |(of, _, _)| *of == layer);
    let own = own.flat_map(|(_, words, why)| words.iter().map(move |word| (*word, *why)));
    let sql = SQL.map(|word| (word, "only store holds SQL"));
    let sql = sql.into_iter().filter(move |_| layer != "store");
    let broken = own.chain(sql).chain([SQL_OF_TEXT]).filter(|(word, _)| line.contains(word));
    broken.map(|(word, why)| format!("`{}`: {why}", word.trim())).collect::<Vec<_>>().into_iter()
}

fn wrong_arrow(from: &str, to: &str) -> Option<String> {
    let rank = |name: &str| LAYERS.iter().find(|(layer, _)| *layer == name).map(|(_, rank)| *rank);
    let (from_rank, to_rank) = (rank(from)?, rank(to)?);
    let wrong = to_rank > from_rank || (to_rank == from_rank && from != to);
    wrong.then(|| format!("{from} may not use {to}"))
}

/// The modules right under `crate::` that a file names, with their lines: `crate::a::B` names `a`,
/// `crate::{a::B, c}` names `a` and `c`.
fn crate_paths(text: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices("crate::") {
        let line_start = text[..start].rfind('\n').map_or(0, |end| end + 1);
        if code(&text[line_start..start]).len() < start - line_start {
            continue;
        }
        let rest = &text[start + "crate::".len()..];
        let first_line = 1 + text[..start].matches('\n').count();
        match rest.strip_prefix('{') {
            Some(group) => found.extend(group_members(group, first_line)),
            None => found.push((first_line, word(rest))),
        }
    }
    found
}

/// The first words of a brace group's members, at its own depth.
fn group_members(group: &str, first_line: usize) -> Vec<(usize, &str)> {
    let (mut members, mut depth, mut line, mut begins) = (Vec::new(), 1, first_line, true);
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            '\n' => line += 1,
            ',' if depth == 1 => begins = true,
            _ if begins && !character.is_whitespace() => {
                members.push((line, word(&group[at..])));
                begins = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    members
}

fn word(text: &str) -> &str {
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(inside: &str, text: &str) -> Vec<String> {
        check(&format!("services/order/src/{inside}"), text).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn arrows_point_down() {
        assert!(rules("rpc/server.rs", "use crate::usecase::place_order;\nuse crate::domain::Order;").is_empty());
        assert!(rules("lib.rs", "use crate::{rpc, worker};").is_empty());
        assert_eq!(rules("store/orders.rs", "use crate::usecase::place_order;"), ["store may not use usecase"]);
        assert_eq!(rules("domain.rs", "fn f() { crate::store::x() }"), ["domain may not use store"]);
        assert_eq!(rules("worker/sweep.rs", "use crate::rpc::convert;"), ["worker may not use rpc"]);
        assert_eq!(rules("domain/order.rs", "use crate::messages::encode;"), ["domain may not use messages"]);
        assert_eq!(rules("store/orders.rs", "use crate::client::Coupons;"), ["store may not use client"]);
        assert!(rules("store/outbox.rs", "use crate::messages::encode;").is_empty());
    }

    #[test]
    fn groups_are_seen_through_with_their_lines() {
        let text = "use crate::{\n    domain::{Order, State},\n    worker,\n};\n";
        assert_eq!(crate_paths(text), [(2, "domain"), (3, "worker")]);
        assert_eq!(rules("usecase/pay.rs", text), ["usecase may not use worker"]);
    }

    #[test]
    fn sql_lives_in_store_only() {
        assert!(rules("store/orders.rs", "sqlx::query(\"SELECT 1\")").is_empty());
        assert_eq!(rules("usecase/pay.rs", "sqlx::query(\"SELECT 1\")").len(), 1);
        assert_eq!(rules("worker/sweep.rs", "let q = QueryBuilder::new(\"\");").len(), 1);
        assert_eq!(rules("usecase/pay.rs", "sqlx::raw_sql(\"SELECT 1\")").len(), 1);
        assert_eq!(rules("usecase/pay.rs", "let q = Statement::new(\"SELECT 1\");").len(), 1);
    }

    #[test]
    fn no_layer_makes_sql_of_text() {
        for inside in ["store/orders.rs", "usecase/pay.rs", "lib.rs"] {
            assert_eq!(rules(inside, "let sql = AssertSqlSafe(format!(\"SELECT {id}\"));").len(), 1, "{inside}");
        }
        assert!(rules("store/orders.rs", "// Like AssertSqlSafe, but checked.").is_empty());
        assert!(check("services/order/tests/it/sale.rs", "raw_sql(AssertSqlSafe(sql))").is_empty());
    }

    #[test]
    fn a_domain_waits_for_nothing_and_contracts_stay_outside() {
        assert_eq!(rules("domain/order.rs", "pub async fn pay() {}").len(), 1);
        assert_eq!(rules("usecase/pay.rs", "use stampede_proto::order::v1::Order;").len(), 1);
        assert!(rules("rpc/convert.rs", "use stampede_proto::order::v1::Order;").is_empty());
    }

    #[test]
    fn comments_and_other_crates_are_free() {
        assert!(
            rules("domain/order.rs", "// tokio is for others; see crate::worker\n/// See `crate::rpc`.").is_empty()
        );
        assert!(check("gateway/src/domain.rs", "pub async fn f() {}").is_empty());
    }

    #[test]
    fn a_service_has_no_main_of_its_own() {
        assert_eq!(rules("main.rs", "fn main() {}").len(), 1);
    }
}
