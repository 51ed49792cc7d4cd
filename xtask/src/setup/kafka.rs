//! Apache Kafka: its jars through Maven, from `deploy/dev/kafka/pom.xml`.

use crate::{
    setup::requirement::{Probe, Requirement},
    shell,
    ui::say,
    workspace::{Workspace, make_directory, remove_directory},
};
use anyhow::Context;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Requirements of Kafka and of fetching it.
pub const REQUIREMENTS: [Requirement; 2] = [
    Requirement {
        what: "Java 17 or later",
        probe: Probe::Java(17),
        packages: &["openjdk-17-jre-headless", "default-jre-headless"],
    },
    Requirement { what: "Maven", probe: Probe::Program("mvn"), packages: &["maven"] },
];

/// The jars.
pub fn libraries(workspace: &Workspace) -> PathBuf {
    workspace.tool("kafka").join("libs")
}

/// Fetches the jars, unless those of the POM are there.
pub fn fetch(workspace: &Workspace) -> anyhow::Result<()> {
    let pom = workspace.root().join("deploy/dev/kafka/pom.xml");
    let wanted = fs::read_to_string(&pom).with_context(|| format!("cannot read {}", pom.display()))?;
    let kept = workspace.tool("kafka").join("pom.xml");
    if is_complete(&libraries(workspace), &kept, &wanted) {
        return Ok(());
    }
    say("fetching Apache Kafka through Maven (92 jars, 55 MB)");
    make_directory(&workspace.tool("kafka"))?;
    remove_directory(&libraries(workspace))?;
    let mut mvn = Command::new("mvn");
    mvn.args(["-q", "-B", "-f"]).arg(&pom).arg("dependency:copy-dependencies");
    mvn.arg(format!("-DoutputDirectory={}", libraries(workspace).display()));
    shell::quiet(&mut mvn)?;
    // Written last, as the mark that all jars are there.
    fs::write(&kept, wanted).with_context(|| format!("cannot write {}", kept.display()))
}

/// Whether the jars of this POM were fetched, and have not been lost since.
fn is_complete(libraries: &Path, kept: &Path, wanted: &str) -> bool {
    let has_jars = || fs::read_dir(libraries).is_ok_and(|mut entries| entries.next().is_some());
    fs::read_to_string(kept).is_ok_and(|had| had == wanted) && has_jars()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn jars_are_fetched_once_and_again_for_another_pom_or_when_they_are_lost() {
        let scratch = Scratch::new("kafka-jars");
        let (libraries, kept) = (scratch.path().join("libs"), scratch.path().join("pom.xml"));
        assert!(!is_complete(&libraries, &kept, "pom"));
        make_directory(&libraries).expect("writable");
        fs::write(libraries.join("kafka.jar"), "").expect("writable");
        assert!(!is_complete(&libraries, &kept, "pom"), "a fetch that was broken off has written no POM");
        fs::write(&kept, "pom").expect("writable");
        assert!(is_complete(&libraries, &kept, "pom"));
        assert!(!is_complete(&libraries, &kept, "a newer pom"));
        fs::remove_file(libraries.join("kafka.jar")).expect("removable");
        assert!(!is_complete(&libraries, &kept, "pom"));
    }
}
