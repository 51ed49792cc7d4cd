//! Every script begins with a header: its purpose, its KEYS, its ARGV if it takes any, and its reply. A prelude is put
//! before other scripts: it has a purpose alone, and takes nothing.

use crate::tidy::Finding;

pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let header: String = text.lines().take_while(|line| line.starts_with("--")).collect::<Vec<_>>().join("\n");
    let lower = header.to_lowercase();
    if path.ends_with("/prelude.lua") && !header.is_empty() {
        return Vec::new();
    }
    let says = [
        ("KEYS", header.contains("KEYS")),
        ("ARGV", header.contains("ARGV") || !text.contains("ARGV")),
        ("replies", lower.contains("repl") || lower.contains("returns")),
    ];
    let missing = says.iter().filter(|(_, there)| !there).map(|(word, _)| *word).collect::<Vec<_>>();
    if missing.is_empty() {
        return Vec::new();
    }
    vec![Finding::new(path, 1, format!("the header at the top does not say: {}", missing.join(", ")))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_has_all_three() {
        assert!(
            check("lua/a.lua", "-- Does it.\n-- KEYS[1]: item\n-- ARGV[1]: user\n-- Replies: 1\nreturn 1").is_empty()
        );
        assert!(check("lua/a.lua", "-- Does it.\n-- KEYS[1]: item\n-- Replies: 1\nreturn 1").is_empty());
        let findings = check("lua/a.lua", "-- KEYS[1]: item\nlocal x = ARGV[1]\n-- Replies: 1");
        assert!(findings[0].rule.ends_with("ARGV, replies"), "{findings:?}");
    }

    #[test]
    fn a_prelude_has_its_purpose() {
        assert!(check("lua/stock/prelude.lua", "-- For others.\nlocal x = 1").is_empty());
        assert_eq!(check("lua/stock/prelude.lua", "local x = 1").len(), 1);
    }
}
