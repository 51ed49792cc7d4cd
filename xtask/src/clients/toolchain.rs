//! The tools that the client in each language needs, and those that are missing. Nothing is installed here.

use crate::{
    cli::Language,
    setup::requirement::{Probe, Requirement},
};

/// Its packages include buf, which generates some of the others.
const VENV: Requirement = Requirement { what: "Python's venv", probe: Probe::PythonVenv, packages: &["python3-venv"] };

const PYTHON: [Requirement; 2] = [
    Requirement { what: "Python 3.10 or later", probe: Probe::Least("python3", (3, 10)), packages: &["python3"] },
    VENV,
];

/// A Go that is older than go.mod asks for fetches the one it needs.
const GO: [Requirement; 2] = [Requirement { what: "Go", probe: Probe::Program("go"), packages: &["golang-go"] }, VENV];

const TYPESCRIPT: [Requirement; 2] = [
    Requirement { what: "Node 20 or later", probe: Probe::Least("node", (20, 0)), packages: &["nodejs"] },
    Requirement { what: "npm", probe: Probe::Program("npm"), packages: &["npm"] },
];

const JAVA: [Requirement; 3] = [
    Requirement { what: "Java 17 or later", probe: Probe::Java(17), packages: &["openjdk-17-jdk-headless"] },
    Requirement { what: "javac", probe: Probe::Program("javac"), packages: &["openjdk-17-jdk-headless"] },
    Requirement { what: "Maven", probe: Probe::Program("mvn"), packages: &["maven"] },
];

/// Returns the requirements of a language that the machine does not meet.
pub fn missing(language: Language) -> Vec<Requirement> {
    let all: &[Requirement] = match language {
        Language::Python => &PYTHON,
        Language::Go => &GO,
        Language::Typescript => &TYPESCRIPT,
        Language::Java => &JAVA,
    };
    all.iter().filter(|one| !one.is_met()).copied().collect()
}

/// Names missing tools, with the packages that have them.
pub fn explain(missing: &[Requirement]) -> String {
    let each: Vec<String> = missing
        .iter()
        .map(|one| format!("{} (Debian's package: {})", one.what, one.packages.first().unwrap_or(&"none")))
        .collect();
    format!("needs {}", each.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_tools_are_named_with_their_packages() {
        let text = explain(&JAVA[1..]);
        assert_eq!(text, "needs javac (Debian's package: openjdk-17-jdk-headless), Maven (Debian's package: maven)");
    }
}
