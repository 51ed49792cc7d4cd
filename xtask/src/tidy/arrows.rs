//! Which crate may depend on which. What is absent from the table is forbidden.

use crate::tidy::Finding;
use stampede_vocab::Service;

/// Crates that every part of a service may use.
const SERVICE: [&str; 11] =
    ["vocab", "chassis", "status", "db", "outbox", "inbox", "batch", "watch", "service", "proto", "lua"];

/// The kits that every service needs, put together.
const COMPOSED: [&str; 7] = ["chassis", "db", "kafka", "outbox", "inbox", "lua", "vocab"];

/// Crates that the one program is made of, apart from the services, and those that its tests of whole sales use.
const PROGRAM: [&str; 7] = ["chassis", "cli", "gateway", "sandbox", "proto", "lua", "vocab"];

/// The folder of that program.
const PROGRAM_DIRECTORY: &str = "stampede";

/// The crate that only tests may use.
const TESTKIT: &str = "testkit";

/// Returns the crates that the crate in this directory may depend on; `None` for one that the table does not list.
fn allowed(directory: &str) -> Option<&'static [&'static str]> {
    Some(match directory {
        // The workspace itself.
        "" => &[],
        // Only crates that build in seconds.
        "xtask" => &["sale", "vocab"],
        "kit/vocab" | "kit/watch" | "kit/kafka" | "sandbox" => &[],
        "proto" | "kit/status" | "kit/identity" | "sale" => &["vocab"],
        "lua" | "kit/db" | "kit/batch" => &["status", "vocab"],
        "kit/chassis" => &["identity", "status", "vocab"],
        // They carry bytes and do not know the contracts.
        "kit/outbox" | "kit/inbox" => &["db", "kafka", "vocab"],
        "kit/service" => &COMPOSED,
        "kit/testkit" => &["chassis", "db", "identity", "proto", "status", "vocab"],
        "gateway" => &["proto", "status", "chassis", "lua", "batch", "vocab"],
        "cli" => &["proto", "lua", "db", "identity", "vocab", "sale"],
        // On top of all: every service too.
        PROGRAM_DIRECTORY => &PROGRAM,
        // Never another service.
        service if service.starts_with("services/") => &SERVICE,
        _ => return None,
    })
}

/// Compares one manifest with the table.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let directory = path.trim_end_matches("Cargo.toml").trim_end_matches('/');
    let Some(allowed) = allowed(directory) else {
        return vec![Finding::new(
            path,
            1,
            format!("{directory} is a crate without arrows: add it to the table in xtask/src/tidy/arrows.rs"),
        )];
    };
    let Ok(manifest) = text.parse::<toml::Table>() else {
        return vec![Finding::new(path, 1, "not a TOML table")];
    };
    let mut findings = Vec::new();
    for section in ["dependencies", "build-dependencies", "dev-dependencies"] {
        for local in local_dependencies(&manifest, section) {
            let for_tests = section == "dev-dependencies" && local == TESTKIT;
            let served = directory == PROGRAM_DIRECTORY && Service::ALL.iter().any(|one| one.name() == local);
            if !for_tests && !served && !allowed.contains(&local.as_str()) {
                let rule = format!("{directory} may not have stampede-{local} in its [{section}]");
                findings.push(Finding::new(path, line_of(text, &local), rule));
            }
        }
    }
    findings
}

/// Returns the crates of this workspace in one section, without their common prefix.
fn local_dependencies(manifest: &toml::Table, section: &str) -> Vec<String> {
    let Some(table) = manifest.get(section).and_then(toml::Value::as_table) else { return Vec::new() };
    let names = table.iter().map(|(key, value)| {
        let renamed = value.get("package").and_then(toml::Value::as_str);
        renamed.unwrap_or(key)
    });
    names.filter_map(|name| Some(name.strip_prefix("stampede-")?.to_owned())).collect()
}

fn line_of(text: &str, local: &str) -> usize {
    let name = format!("stampede-{local}");
    1 + text.lines().position(|line| line.contains(&name)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<String> {
        check(path, text).into_iter().map(|finding| finding.rule).collect()
    }

    #[test]
    fn an_arrow_of_the_table_is_fine() {
        assert!(rules("kit/db/Cargo.toml", "[dependencies]\nstampede-vocab.workspace = true").is_empty());
        assert!(rules("kit/db/Cargo.toml", "[dev-dependencies]\nstampede-testkit.workspace = true").is_empty());
        assert!(rules("services/order/Cargo.toml", "[dependencies]\nsqlx = \"1\"\nstampede-db = {}").is_empty());
        assert!(rules("stampede/Cargo.toml", "[dependencies]\nstampede-order = {}\nstampede-cli = {}").is_empty());
    }

    #[test]
    fn an_arrow_that_is_absent_is_named() {
        for (path, text) in [
            ("kit/vocab/Cargo.toml", "[dependencies]\nstampede-db.workspace = true"),
            ("kit/outbox/Cargo.toml", "[dependencies]\nstampede-proto.workspace = true"),
            ("services/order/Cargo.toml", "[dependencies]\nstampede-coupon.workspace = true"),
            ("services/order/Cargo.toml", "[dev-dependencies]\nstampede-coupon.workspace = true"),
            ("services/order/Cargo.toml", "[dependencies]\nstampede-testkit.workspace = true"),
            ("gateway/Cargo.toml", "[dependencies]\nother = { package = \"stampede-db\", path = \"../kit/db\" }"),
            ("proto/Cargo.toml", "[build-dependencies]\nstampede-lua.workspace = true"),
            ("cli/Cargo.toml", "[dependencies]\nstampede-batch.workspace = true"),
            ("gateway/Cargo.toml", "[dependencies]\nstampede-order.workspace = true"),
            ("stampede/Cargo.toml", "[dependencies]\nstampede-db.workspace = true"),
        ] {
            assert_eq!(rules(path, text).len(), 1, "{path}: {text}");
        }
    }

    #[test]
    fn the_line_is_the_dependencys() {
        let findings = check("kit/vocab/Cargo.toml", "[dependencies]\nserde = \"1\"\nstampede-db = {}");
        assert_eq!(findings[0].line, 3);
    }

    #[test]
    fn a_crate_that_the_table_does_not_know_is_named() {
        assert!(rules("kit/common/Cargo.toml", "")[0].contains("without arrows"));
    }
}
