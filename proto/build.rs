//! Compiles the contracts without protoc, and keeps a descriptor set with every option for reflection and the gateway.

use std::{env, error::Error, fs, path::PathBuf};

/// Every file of ours; what they import comes along.
const PROTOS: [&str; 12] = [
    "stampede/coupon/v1/coupon.proto",
    "stampede/event/v1/event.proto",
    "stampede/inventory/v1/inventory.proto",
    "stampede/message/v1/coupon.proto",
    "stampede/message/v1/event.proto",
    "stampede/message/v1/inventory.proto",
    "stampede/message/v1/order.proto",
    "stampede/message/v1/payment.proto",
    "stampede/order/v1/order.proto",
    "stampede/payment/v1/payment.proto",
    "stampede/type/v1/access.proto",
    "stampede/type/v1/money.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    for dir in ["stampede", "google"] {
        println!("cargo:rerun-if-changed={}", root.join(dir).display());
    }
    let mut compiler = protox::Compiler::new([root])?;
    compiler.include_source_info(true).include_imports(true);
    compiler.open_files(PROTOS)?;

    // Only the encoded form keeps the extension options (google.api.http, stampede.type.v1.access).
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptor.binpb"), compiler.encode_file_descriptor_set())?;

    // The annotations are read by reflection, so no Rust code is needed for google.api.
    let mut files = compiler.file_descriptor_set();
    files.file.retain(|file| file.package() != "google.api");
    tonic_prost_build::configure().build_transport(false).include_file("mod.rs").compile_fds(files)?;
    Ok(())
}
