//! The Lua scripts: each applies its writes atomically.

use std::sync::LazyLock;

use redis::Cmd;

/// A script and its SHA-1 for EVALSHA.
pub(super) struct Script {
    code: &'static str,
    compiled: LazyLock<String, fn() -> String>,
}

macro_rules! scripts {
    ($($name:ident = $file:literal;)*) => {
        $(pub(super) static $name: Script = Script {
            code: include_str!($file),
            compiled: LazyLock::new(|| redis::Script::new(include_str!($file)).get_hash().to_owned()),
        };)*
        /// Every script, for tests.
        #[cfg(test)]
        const ALL: &[(&str, &Script)] = &[$(($file, &$name)),*];
    };
}

scripts! {
    ADD = "lua/add.lua";
    APPEND = "lua/append.lua";
    CLAIM = "lua/claim.lua";
    COLLECT = "lua/collect.lua";
    COLLECTION = "lua/collection.lua";
    CONFIRM = "lua/confirm.lua";
    CREATE_GROUP = "lua/create_group.lua";
    ENTRIES = "lua/entries.lua";
    EXTENT = "lua/extent.lua";
    FORGET_CONSUMERS = "lua/forget_consumers.lua";
    HAND_OVER = "lua/hand_over.lua";
    LEASE = "lua/lease.lua";
    LEAVE = "lua/leave.lua";
    PARK = "lua/park.lua";
    POSITIONS = "lua/positions.lua";
    RAISE = "lua/raise.lua";
    RANGE = "lua/range.lua";
    READ = "lua/read.lua";
    REDATE = "lua/redate.lua";
    REGISTER = "lua/register.lua";
    RELEASE = "lua/release.lua";
    REPLACE = "lua/replace.lua";
    REPORT = "lua/report.lua";
    REPORTS = "lua/reports.lua";
    RETRY = "lua/retry.lua";
    STAGE = "lua/stage.lua";
    TRIM = "lua/trim.lua";
}

impl Script {
    pub(super) fn code(&self) -> &'static str {
        self.code
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
