//! Compiles the contracts without protoc, and keeps a descriptor set with every option for reflection and the gateway.

use std::{
    env,
    error::Error,
    fs, io,
    path::{Path, PathBuf},
};

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    for dir in ["stampede", "google"] {
        println!("cargo:rerun-if-changed={}", root.join(dir).display());
    }
    let mut compiler = protox::Compiler::new([&root])?;
    compiler.include_source_info(true).include_imports(true);
    // Every file of ours; what they import comes along.
    compiler.open_files(contracts(&root.join("stampede"))?)?;
    // The details of errors are carried as `Any`: tools show them if reflection tells what they are.
    compiler.open_files(contracts(&root.join("google/rpc"))?)?;

    // Only the encoded form keeps the extension options (google.api.http, stampede.type.v1.access).
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.binpb"), compiler.encode_file_descriptor_set())?;

    // The annotations are read by reflection, and the details by tonic-types: no Rust code is needed for either.
    let mut files = compiler.file_descriptor_set();
    files.file.retain(|file| !["google.api", "google.rpc"].contains(&file.package()));
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    let builder = tonic_prost_build::configure().build_transport(false).include_file("mod.rs");
    builder.compile_fds_with_config(files, config)?;
    Ok(())
}

/// The .proto files below a directory, in the order of their paths.
fn contracts(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(contracts(&path)?);
        } else if path.extension().is_some_and(|end| end == "proto") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
