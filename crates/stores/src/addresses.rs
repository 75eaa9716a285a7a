//! What may be shown of the addresses of the servers.

use tidewheel_core::address::{Allowed, HTTP};

/// The addresses of every server, so that messages about a setting with another server's address show it too.
pub const ADDRESSES: &[Allowed] = &[crate::mongo::ADDRESSES, crate::redis::ADDRESSES, HTTP];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidewheel_core::address::{holds_secret, is_ambiguous, origin, scrubbed, shown};

    use super::*;

    #[test]
    fn address_shows_hosts_path_and_harmless_options_only() {
        for (given, expected) in [
            (
                "mongodb://ann:s3cret@a:27017,b:27017/shop?replicaSet=rs0&authSource=$external",
                "mongodb://***@a:27017,b:27017/shop?replicaSet=rs0&authSource=$external",
            ),
            (
                "mongodb+srv://a.example.net/?authMechanismProperties=AWS_SESSION_TOKEN:s3cret&tls=true",
                "mongodb+srv://a.example.net/?tls=true&***",
            ),
            ("mongodb://a/?tlsCertificateKeyFilePassword=s3cret", "mongodb://a/?***"),
            ("mongodb://%2Ftmp%2Fmongodb-27017.sock", "mongodb://%2Ftmp%2Fmongodb-27017.sock"),
            ("redis://:s3cret@cache:6379/1", "redis://***@cache:6379/1"),
            ("redis://:s@3cret@cache:6379/1", "redis://***@cache:6379/1"),
            ("redis+unix:///run/redis.sock?db=2&pass=s3cret", "redis+unix:///run/redis.sock?db=2&***"),
            ("redis+unix:///run/redis.sock?db=s3cret", "redis+unix:///run/redis.sock?***"),
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            ("rediss://[::1]:6379/0", "rediss://[::1]:6379/0"),
            ("https://s3cret@far:6334/#s3cret", "https://***@far:6334/#***"),
        ] {
            assert_eq!(shown(given, ADDRESSES), expected, "{given}");
            assert_eq!(holds_secret(given, ADDRESSES), given != expected, "{given}");
        }
    }

    #[test]
    fn ambiguous_address_shows_its_scheme_only() {
        for (given, expected) in [
            ("redis://:p@ss/w@cache:6379/1", "redis://***"),
            ("mongodb://ann:s3?cret@a/", "mongodb://***"),
            ("mongodb://ann:s3#cret@a/", "mongodb://***"),
        ] {
            assert_eq!(shown(given, ADDRESSES), expected, "{given}");
            assert!(is_ambiguous(given, ADDRESSES), "{given}");
        }
        assert!(!is_ambiguous("redis://:s%2Fcret@cache:6379/1", ADDRESSES));
    }

    #[test]
    fn scrubbed_message_keeps_everything_but_the_secret() {
        let address = "mongodb://ann:hunt%40er2@host:27017/?replicaSet=rs0";
        let scrub = |message| scrubbed(message, address, ADDRESSES);
        assert_eq!(scrub("host:27017 is unreachable"), "host:27017 is unreachable");
        assert_eq!(scrub("\"ann:hunt%40er2\" is refused by host"), "\"***\" is refused by host");
        assert_eq!(scrub("password hunt@er2"), "password ***");
        let address = "redis://:hunter2@h:x";
        assert_eq!(scrubbed("port 'hunter2' of ANN", address, ADDRESSES), "port '***' of ANN");
    }

    const PLACES: [&str; 8] = [
        "mongodb://ann:{}@a:1,b:2/db?replicaSet=rs0",
        "mongodb://{}:pass@a/?authMechanism=MONGODB-AWS",
        "mongodb://a/?authMechanismProperties=AWS_SESSION_TOKEN:{}",
        "mongodb://a/?tlsCertificateKeyFilePassword={}&replicaSet=rs0",
        "redis://:{}@cache:6379/0",
        "redis+unix:///run/redis.sock?pass={}&db=1",
        "{}://far",
        "{}",
    ];

    proptest! {
        #[test]
        fn secret_is_never_shown_in_any_position(
            place in prop::sample::select(&PLACES[..]),
            start in "[A-Za-z0-9]{6,12}",
            middle in "[@?#/:%&=,;$!+ ._-]{0,3}",
            end in "[A-Za-z0-9]{0,8}",
        ) {
            let secret = format!("{start}{middle}{end}");
            let address = place.replace("{}", &secret);
            let text = format!("{} {}", shown(&address, ADDRESSES), origin(&address, ADDRESSES));
            prop_assert!(!text.contains(&start), "{} shows {}", address, text);
            let message = format!("cannot read {address:?}: {secret:?} is wrong");
            let message = scrubbed(&message, &address, ADDRESSES);
            prop_assert!(!message.contains(&start), "{} leaks in {}", address, message);
        }
    }
}
