//! The Lua scripts: each applies its writes atomically.

use std::sync::LazyLock;

use redis::Cmd;

/// A script with the functions that it shares with others, and its SHA-1 for EVALSHA.
pub(super) struct Script {
    code: LazyLock<String, fn() -> String>,
    compiled: LazyLock<String, fn() -> String>,
}

macro_rules! scripts {
    ($($name:ident = $file:literal $(with $shared:literal)*;)*) => {
        $(pub(super) static $name: Script = Script {
            code: LazyLock::new(|| linked(include_str!($file), &[$(include_str!($shared)),*])),
            compiled: LazyLock::new(|| redis::Script::new($name.code()).get_hash().to_owned()),
        };)*
        /// Every script, for tests.
        #[cfg(test)]
        const ALL: &[(&str, &Script)] = &[$(($file, &$name)),*];
    };
}

scripts! {
    ADD = "lua/add.lua" with "lua/shared_counts.lua";
    APPEND = "lua/append.lua" with "lua/shared_ids.lua" with "lua/shared_counts.lua";
    CATALOG = "lua/catalog.lua";
    CLAIM = "lua/claim.lua";
    COLLECT = "lua/collect.lua" with "lua/shared_versions.lua";
    COLLECTION = "lua/collection.lua" with "lua/shared_losses.lua";
    CONFIRM = "lua/confirm.lua";
    CREATE_GROUP = "lua/create_group.lua";
    DROP = "lua/drop.lua";
    ENTRIES = "lua/entries.lua" with "lua/shared_ids.lua";
    EXTENT = "lua/extent.lua";
    FORGET_CONSUMERS = "lua/forget_consumers.lua";
    FOUND = "lua/found.lua";
    HAND_OVER = "lua/hand_over.lua"
        with "lua/shared_pending.lua" with "lua/shared_losses.lua" with "lua/shared_counts.lua";
    INDEXES = "lua/indexes.lua";
    LEASE = "lua/lease.lua";
    LEAVE = "lua/leave.lua";
    LOST = "lua/lost.lua" with "lua/shared_losses.lua";
    PARK = "lua/park.lua";
    POSITIONS = "lua/positions.lua" with "lua/shared_ids.lua";
    RAISE = "lua/raise.lua" with "lua/shared_versions.lua";
    RANGE = "lua/range.lua";
    READ = "lua/read.lua" with "lua/shared_ids.lua";
    REDATE = "lua/redate.lua";
    REGISTER = "lua/register.lua";
    RELEASE = "lua/release.lua";
    REPLACE = "lua/replace.lua";
    REPORT = "lua/report.lua";
    REPORTS = "lua/reports.lua";
    RETRY = "lua/retry.lua" with "lua/shared_versions.lua";
    SKIP = "lua/skip.lua" with "lua/shared_pending.lua" with "lua/shared_losses.lua";
    STAGE = "lua/stage.lua" with "lua/shared_ids.lua";
    TRIM = "lua/trim.lua" with "lua/shared_ids.lua";
}

/// Inserts the shared functions after a script's first line, which declares its flags.
fn linked(code: &str, shared: &[&str]) -> String {
    let (flags, rest) = code.split_once('\n').unwrap_or((code, ""));
    [&[flags, "\n"][..], shared, &[rest]].concat().concat()
}

impl Script {
    pub(super) fn code(&self) -> &str {
        &self.code
    }

    /// Returns the command that runs the script on these keys; the caller adds the arguments. Their number and total
    /// bytes size the command's buffer.
    pub(super) fn command(&self, keys: &[&str], arguments: usize, bytes: usize) -> Cmd {
        let mut command = Cmd::with_capacity(3 + keys.len() + arguments, 128 + bytes);
        command.arg("EVALSHA").arg(self.compiled.as_str()).arg(keys.len());
        for key in keys {
            command.arg(key);
        }
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_functions_follow_the_line_of_flags() {
        let code = linked("#!lua flags=no-writes\nreturn newer(1, 2)\n", &["local function newer() end\n"]);
        assert_eq!(code, "#!lua flags=no-writes\nlocal function newer() end\nreturn newer(1, 2)\n");
        assert!(RAISE.code().contains("local function newer"));
    }

    #[test]
    fn every_script_declares_its_behaviour_at_maxmemory() {
        for (file, script) in ALL {
            assert!(script.code().starts_with("#!lua"), "{file}");
            // Only scripts that fill the streams may fail at maxmemory; scripts that drain them must keep working.
            let may_stop = file.ends_with("append.lua")
                || file.ends_with("add.lua")
                || script.code().starts_with("#!lua flags=no-writes");
            assert_eq!(!script.code().starts_with("#!lua flags=allow-oom"), may_stop, "{file}");
        }
    }
}
