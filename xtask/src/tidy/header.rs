//! Files that are deployed or played begin with a comment on their purpose: no compiler requires it.

use crate::tidy::Finding;

/// Folders of such files.
const FOLDERS: [&str; 3] = ["clients/", "deploy/", "ghz-bench/"];
/// Endings of files that can have a comment, each with the start of one.
const COMMENTS: [(&str, &str); 9] = [
    (".yaml", "#"),
    (".sh", "#"),
    (".tf", "#"),
    (".conf", "#"),
    (".service", "#"),
    (".properties", "#"),
    ("/.env", "#"),
    ("/Dockerfile", "#"),
    (".sql", "--"),
];

/// Whether the file at this path needs a header, and how that begins.
pub fn comment_of(path: &str) -> Option<&'static str> {
    let lies_there = FOLDERS.iter().any(|folder| path.starts_with(folder));
    COMMENTS.iter().find(|(end, _)| lies_there && path.ends_with(end)).map(|(_, comment)| *comment)
}

pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let Some(comment) = comment_of(path) else { return Vec::new() };
    let first = text.lines().find(|line| !line.starts_with("#!")).unwrap_or_default();
    let says = first.strip_prefix(comment).is_some_and(|words| words.trim().split(' ').count() > 1);
    if says { Vec::new() } else { vec![Finding::new(path, 1, "the first line does not say what this is for")] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployed_file_begins_with_its_purpose() {
        assert!(check("deploy/a.yaml", "# Alerts on what waits.\ngroups: []\n").is_empty());
        assert!(check("deploy/a.sh", "#!/bin/sh\n# Starts it.\n").is_empty());
        assert_eq!(check("deploy/compose/.env", "A=1\n").len(), 1);
        assert_eq!(check("deploy/a.sql", "--\nGRANT ALL\n").len(), 1);
        assert_eq!(check("clients/go/buf.gen.yaml", "version: v2\n").len(), 1);
        assert!(check("deploy/a.json", "{}").is_empty() && check("kit/a.yaml", "a: 1").is_empty());
    }
}
