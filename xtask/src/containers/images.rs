//! The images that the compose files need: those on this machine, those that can be pulled, or stand-ins for them.

use crate::{
    containers::docker::Docker,
    setup::{
        self, apt,
        requirement::{Probe, Requirement},
    },
    shell,
    ui::Step,
    workspace::{Workspace, make_directory, remove_directory},
};
use anyhow::{Context, bail};
use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

/// Debian's release that stand-ins are made of.
const RELEASE: &str = "bookworm";
const BASE: &str = "stampede-stand-in/debian:bookworm";
const PULL_TIMEOUT: Duration = Duration::from_secs(300);

/// A public image: the variable of `.env` that names it, and the folder of its stand-in.
const PUBLIC: [(&str, &str); 4] =
    [("REDIS_IMAGE", "redis"), ("MYSQL_IMAGE", "mysql"), ("KAFKA_IMAGE", "kafka"), ("RUST_IMAGE", "rust")];

/// Ensures that every public image exists or has a stand-in, and sets the variables that name it.
pub fn provide(workspace: &Workspace, docker: &Docker, variables: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    for (variable, folder) in PUBLIC {
        let image = variables.get_mut(variable).with_context(|| format!(".env does not name {variable}"))?;
        if !docker.has_image(image) && !pull(docker, image) {
            *image = stand_in(workspace, docker, folder)?;
        }
    }
    Ok(())
}

fn pull(docker: &Docker, image: &str) -> bool {
    let step = Step::begin("image", &format!("pulling {image}"));
    // In the foreground: a Ctrl-C reaches it there.
    let mut pull = Command::new("timeout");
    pull.arg("--foreground")
        .arg(PULL_TIMEOUT.as_secs().to_string())
        .arg(docker.command().get_program())
        .args(["pull", "--quiet", image]);
    let pulled = shell::succeeds(&mut pull);
    step.done(&if pulled { format!("{image} is here") } else { format!("{image} cannot be pulled") });
    pulled
}

fn stand_in(workspace: &Workspace, docker: &Docker, folder: &str) -> anyhow::Result<String> {
    let recipe = workspace.root().join("deploy/compose/stand-ins").join(folder);
    let image = format!("stampede-stand-in/{folder}:{:016x}", fingerprint(&recipe)?);
    if docker.has_image(&image) {
        return Ok(image);
    }
    base(workspace, docker)?;
    let step = Step::begin("image", &format!("building a stand-in for {folder}"));
    let context = workspace.run("containers").join(folder);
    remove_directory(&context)?;
    make_directory(context.parent().context("it lies in a directory")?)?;
    copy(&recipe, &context)?;
    add_parts(workspace, folder, &context)?;
    shell::quiet(docker.command().args(["build", "--tag", &image]).arg(&context).env("DOCKER_BUILDKIT", "1"))?;
    remove_directory(&context)?;
    step.done(&image);
    Ok(image)
}

/// Tags a recipe by its content, so that a stand-in of an older one is not reused.
fn fingerprint(folder: &Path) -> anyhow::Result<u64> {
    let read = || -> std::io::Result<u64> {
        let mut files: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_, std::io::Error>>()?;
        files.sort();
        let mut hasher = DefaultHasher::new();
        for file in files {
            (file.file_name(), fs::read(&file)?).hash(&mut hasher);
        }
        Ok(hasher.finish())
    };
    read().with_context(|| format!("cannot read {}", folder.display()))
}

/// Adds the parts of a stand-in, apart from Debian's packages: those that this machine runs and builds with.
fn add_parts(workspace: &Workspace, folder: &str, context: &Path) -> anyhow::Result<()> {
    match folder {
        "kafka" => {
            setup::fetch_kafka(workspace)?;
            copy(&setup::kafka_libraries(workspace), &context.join("libs"))?;
            let logging = workspace.root().join("deploy/dev/kafka/log4j2.properties");
            copy(&logging, &context.join("log4j2.properties"))
        }
        "mysql" => copy(&setup::mysql::distribution(workspace)?, &context.join("dist")),
        "rust" => {
            let sysroot = shell::quiet(Command::new("rustc").arg("--print").arg("sysroot"))?;
            copy(&PathBuf::from(sysroot.trim()), &context.join("toolchain"))
        }
        _ => Ok(()),
    }
}

/// Copies by hard links where it can: a toolchain has a gigabyte.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let link = shell::succeeds(Command::new("cp").args(["--archive", "--link"]).arg(from).arg(to));
    if link {
        return Ok(());
    }
    remove_directory(to)?;
    shell::quiet(Command::new("cp").arg("--archive").arg(from).arg(to)).map(drop)
}

/// A minimal Debian, the base of all stand-ins.
fn base(workspace: &Workspace, docker: &Docker) -> anyhow::Result<()> {
    if docker.has_image(BASE) {
        return Ok(());
    }
    apt::provide(&[Requirement {
        what: "debootstrap",
        probe: Probe::Program("debootstrap"),
        packages: &["debootstrap"],
    }])?;
    if !nix::unistd::Uid::effective().is_root() {
        bail!("without a registry the images are made by debootstrap, which needs root: run the test as root");
    }
    let step = Step::begin("image", "making a Debian by debootstrap");
    let root = workspace.run("containers").join("debian");
    remove_directory(&root)?;
    make_directory(&root)?;
    let mut debootstrap = Command::new(shell::find_program("debootstrap").context("debootstrap is gone")?);
    debootstrap.args(["--variant=minbase", "--include=ca-certificates", RELEASE]).arg(&root).args(mirror());
    shell::quiet(&mut debootstrap)?;
    bring_certificates(&root)?;
    let tar = root.with_extension("tar");
    shell::quiet(Command::new("tar").arg("-C").arg(&root).arg("-cf").arg(&tar).arg("."))?;
    shell::quiet(docker.command().arg("import").arg(&tar).arg(BASE))?;
    remove_directory(&root)?;
    fs::remove_file(&tar).with_context(|| format!("cannot remove {}", tar.display()))?;
    step.done(BASE);
    Ok(())
}

/// Returns the apt mirror of this machine, if one is set: it is known to be reachable.
fn mirror() -> Option<String> {
    let lists = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    let texts = lists.iter().filter_map(|file| fs::read_to_string(file).ok());
    texts.filter_map(|text| mirror_in(&text)).next()
}

fn mirror_in(text: &str) -> Option<String> {
    let lines = text.lines().filter(|line| line.starts_with("deb ") || line.starts_with("URIs:"));
    let mut words = lines.flat_map(str::split_whitespace);
    words.find(|word| word.starts_with("http")).map(str::to_owned)
}

/// The certificates that this machine trusts: a proxy on the way to a registry may have its own.
fn bring_certificates(root: &Path) -> anyhow::Result<()> {
    const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
    let (own, theirs) = (Path::new("/").join(BUNDLE), root.join(BUNDLE));
    if own.exists() {
        fs::copy(&own, &theirs).with_context(|| format!("cannot write {}", theirs.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_read_from_both_kinds_of_lists() {
        let deb822 = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(deb822).as_deref(), Some("http://mirror.example/debian"));
        let old = "# a comment with http://nowhere\ndeb [signed-by=/x] http://mirror.example/debian bookworm main\n";
        assert_eq!(mirror_in(old).as_deref(), Some("http://mirror.example/debian"));
        assert_eq!(mirror_in("deb file:/media/cdrom bookworm main\n"), None);
    }
}
