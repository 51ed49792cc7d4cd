//! Finds the schemas: a folder of migrations is that of the service of its name. Their SQL is embedded at compile time,
//! so this crate is built again when a migration is added or changed.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

/// Where the folders are, from this crate.
const MIGRATIONS: &str = "../../migrations";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={MIGRATIONS}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("schemas.rs"), schemas(&folders(Path::new(MIGRATIONS))?))?;
    Ok(())
}

/// The names of the folders in a directory, in their order.
fn folders(directory: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            found.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    found.sort();
    Ok(found)
}

/// A call of `schemas!` with `Order from "../../migrations/order";` for each folder.
fn schemas(folders: &[String]) -> String {
    let lines = folders.iter().map(|folder| {
        let (first, rest) = folder.split_at(1);
        format!("    {}{rest} from \"{MIGRATIONS}/{folder}\";\n", first.to_uppercase())
    });
    format!("schemas! {{\n{}}}\n", lines.collect::<String>())
}
