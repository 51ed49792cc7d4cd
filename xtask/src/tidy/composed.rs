//! `kit/service` composes the other kits: it has no SQL, no script and no message of the contract, since every service
//! would have it too. A text scan, which is enough for a rule that nobody tries to evade.

use crate::tidy::{Finding, layers::SQL, source::code};
use stampede_vocab::Service;

/// The folder of the crate.
const FOLDER: &str = "kit/service/";

/// Endings of files that may not be there.
const FILES: [&str; 3] = [".sql", ".lua", ".proto"];

/// Words that the sources may not have, beside those by which a store writes SQL and the names of messages; and what
/// they stand for.
const FORBIDDEN: [(&str, &str); 12] = [
    ("sqlx", "SQL"),
    ("SELECT ", "SQL"),
    ("INSERT ", "SQL"),
    ("UPDATE ", "SQL"),
    ("DELETE ", "SQL"),
    ("redis.call", "script"),
    ("\"EVAL", "script"),
    ("Script::new", "script"),
    ("include_str!", "SQL or script"),
    ("stampede_proto", "message"),
    ("prost", "message"),
    ("stampede.message.", "message"),
];

/// Whether no such file may be at this path.
pub fn is_misplaced(path: &str) -> bool {
    path.starts_with(FOLDER) && FILES.iter().any(|end| path.ends_with(end))
}

/// Checks one file, if it belongs to the crate.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    if is_misplaced(path) {
        return vec![Finding::new(path, 1, "the kit composes: SQL, scripts and messages belong elsewhere")];
    }
    if !path.starts_with(FOLDER) || !path.ends_with(".rs") {
        return Vec::new();
    }
    let findings = text.lines().enumerate().filter_map(|(index, line)| {
        let (word, what) = forbidden().find(|(word, _)| code(line).contains(word))?;
        Some(Finding::new(path, index + 1, format!("`{}`: the kit composes, and has no {what}", word.trim())))
    });
    findings.collect()
}

fn forbidden() -> impl Iterator<Item = (&'static str, &'static str)> {
    let store = SQL.into_iter().map(|word| (word, "SQL"));
    let taken = Service::ALL.into_iter().flat_map(|reader| Service::ALL.map(|writer| reader.takes(writer)));
    let messages = taken.flatten().map(|name| (*name, "message"));
    FORBIDDEN.into_iter().chain(store).chain(messages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<String> {
        check(path, text).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn what_composes_is_fine() {
        let text = "//! Holds no SQL: nobody may SELECT here.\nlet redis = Redis::connect(config).await?; // prost\n";
        assert!(rules("kit/service/src/parts.rs", text).is_empty());
        assert!(rules("kit/service/Cargo.toml", "description = \"no prost\"").is_empty());
    }

    #[test]
    fn sql_scripts_and_messages_are_found_once_a_line() {
        for (line, what) in [
            ("sqlx::query(\"SELECT 1\")", "SQL"),
            ("let text = \"UPDATE orders SET state = 1\";", "SQL"),
            ("let query = Statement::new(text);", "SQL"),
            ("redis::cmd(\"EVAL\")", "script"),
            ("const TEXT: &str = \"return redis.call('TIME')\";", "script"),
            ("static COUNT: Script = Script::new(\"count\", TEXT);", "script"),
            ("const TEXT: &str = include_str!(\"count.lua\");", "script"),
            ("use stampede_proto::order::v1::Order;", "message"),
            ("if name == \"OrderFulfilled\" {", "message"),
        ] {
            let findings = check("kit/service/src/parts.rs", &format!("//! Parts.\n{line}\n"));
            assert_eq!(findings.len(), 1, "{line}: {findings:?}");
            assert!(findings[0].line == 2 && findings[0].rule.ends_with(what), "{line}: {findings:?}");
        }
    }

    #[test]
    fn files_of_them_are_found_by_their_ending() {
        for path in ["kit/service/src/count.lua", "kit/service/count.sql", "kit/service/proto/count.proto"] {
            assert_eq!(rules(path, "-- Counts.").len(), 1, "{path}");
        }
    }

    #[test]
    fn others_have_theirs() {
        for path in ["kit/outbox/src/relay.rs", "services/order/src/store/orders.rs"] {
            assert!(rules(path, "sqlx::query(\"SELECT 1\")").is_empty(), "{path}");
        }
        assert!(rules("lua/stock/find.lua", "return redis.call('TIME')").is_empty());
    }
}
