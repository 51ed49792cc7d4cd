//! How long a function is. It relies on rustfmt: a function ends with a brace at its own indentation.

use crate::tidy::Finding;

/// A longer function is a design question.
const FUNCTION_LINES: usize = 70;

/// Finds the functions of a file that are too long.
pub fn check(path: &str, text: &str) -> Vec<Finding> {
    let lines: Vec<&str> = text.lines().collect();
    let long = |(index, line): (usize, &&str)| {
        let length = length(line, &lines[index..])?;
        let rule = format!("a function of {length} lines; {FUNCTION_LINES} are the most");
        (length > FUNCTION_LINES).then(|| Finding::new(path, index + 1, rule))
    };
    lines.iter().enumerate().filter_map(long).collect()
}

/// The number of lines of the function that begins on the first of these, if one does.
fn length(first: &str, lines: &[&str]) -> Option<usize> {
    let indentation = &first[..first.len() - first.trim_start().len()];
    if !begins_function(first.trim_start()) || first.ends_with([';', '}']) {
        return None;
    }
    let end = format!("{indentation}}}");
    let declared = |line: &str| line.starts_with(&format!("{indentation})")) && line.ends_with(';');
    let last = lines.iter().position(|line| *line == end || declared(line))?;
    Some(last + 1)
}

fn begins_function(line: &str) -> bool {
    let mut words = line.split_whitespace();
    words.find(|word| !is_qualifier(word)) == Some("fn")
}

fn is_qualifier(word: &str) -> bool {
    ["async", "const", "extern", "\"C\""].contains(&word) || word == "pub" || word.starts_with("pub(")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn function(head: &str, body: usize) -> String {
        format!("{head} {{\n{}}}\n", "    x();\n".repeat(body))
    }

    #[test]
    fn only_functions_over_the_limit_are_found() {
        assert!(check("a.rs", &function("pub fn f()", FUNCTION_LINES - 2)).is_empty());
        assert_eq!(check("a.rs", &function("pub(crate) async fn f()", FUNCTION_LINES - 1)).len(), 1);
        assert_eq!(check("a.rs", &function("fn f<T>()", 200))[0].line, 1);
    }

    #[test]
    fn what_is_no_function_has_no_length() {
        assert!(check("a.rs", &function("impl X", 200)).is_empty());
        assert!(check("a.rs", &format!("fn declared();\n{}", function("mod m", 200))).is_empty());
    }

    #[test]
    fn an_inner_brace_is_not_the_end() {
        let text = format!("fn f() {{\n    if x {{\n    }}\n{}}}\n", "    y();\n".repeat(70));
        assert_eq!(check("a.rs", &text).len(), 1);
    }
}
