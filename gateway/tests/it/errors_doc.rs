//! Every reason is explained in docs/errors.md, with the codes that it is answered with.

use stampede_status::Reason;

const PAGE: &str = include_str!("../../../docs/errors.md");

/// Returns the text under the heading of a reason.
fn section(reason: Reason) -> &'static str {
    let heading = format!("### <a id=\"{reason}\"></a>{reason}\n");
    let start = PAGE.find(&heading).unwrap_or_else(|| panic!("docs/errors.md does not explain {reason}"));
    let text = &PAGE[start + heading.len()..];
    let end = text.find("\n#").unwrap_or(text.len());
    &text[..end]
}

/// Returns `FAILED_PRECONDITION` for `FailedPrecondition`.
fn code_name(reason: Reason) -> String {
    let mut name = String::new();
    for letter in format!("{:?}", reason.code()).chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_uppercase());
    }
    name
}

#[test]
fn every_reason_has_its_codes_a_meaning_and_a_mend() {
    for reason in Reason::ALL.iter().copied() {
        let text = section(reason);
        let codes = format!("HTTP {}, gRPC {}. ", reason.http().as_u16(), code_name(reason));
        let meaning = text.trim_start().strip_prefix(&codes);
        let meaning = meaning.unwrap_or_else(|| panic!("{reason} is answered with {codes}, not as written: {text}"));
        let mend = meaning.split_once("*Mend:* ").map(|(_, mend)| mend.trim());
        assert!(mend.is_some_and(|mend| !mend.is_empty()), "{reason} has no mend");
    }
}

#[test]
fn nothing_is_explained_that_does_not_exist() {
    for name in PAGE.lines().filter_map(|line| line.strip_prefix("### <a id=\"")?.split_once('"')) {
        assert!(Reason::parse(name.0).is_some(), "{} is no reason", name.0);
    }
}
