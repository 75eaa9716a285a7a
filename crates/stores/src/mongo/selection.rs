//! A coverage, prepared for the narrowest change stream that delivers all of it.

use std::collections::BTreeSet;

use mongodb::Database;
use tidewheel_core::catalog::{Databases, Glob, NamespacePattern, Selector};
use tidewheel_core::error::PortError;
use tidewheel_core::identity::Namespace;
use tidewheel_core::ports::{Coverage, PortResult};

use super::failure::on_deployment;
use super::filters::Filters;
use super::server::{Kind, Listed, Server};

/// A change stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    /// Of one database.
    Database(String),
    /// Of the whole deployment.
    Deployment,
}

impl Stream {
    /// The database on which it is opened.
    pub(super) fn database(&self, server: &Server) -> Database {
        match self {
            Self::Database(name) => server.database(name),
            Self::Deployment => server.database("admin"),
        }
    }

    /// Names the permission that this change stream needs, if a permission is missing.
    pub(super) fn explain(&self, error: PortError) -> PortError {
        match self {
            Self::Database(_) => error,
            Self::Deployment => on_deployment(error),
        }
    }

    /// Its database, if it is of one, and the deployment, for messages.
    pub(super) fn name(&self, server: &Server) -> String {
        match self {
            Self::Database(name) => format!("{name} on {}", server.name()),
            Self::Deployment => server.name().to_owned(),
        }
    }
}

/// The selected events of a change stream.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    selectors: Vec<Selector>,
    stream: Stream,
    filters: Filters,
}

impl Selection {
    /// # Errors
    /// Fatal if a filter is invalid or unsupported.
    pub(super) fn new(coverage: &Coverage) -> PortResult<Self> {
        let (selectors, filters) = (merged(&coverage.selectors), Filters::parse(&coverage.filters)?);
        Ok(Self { stream: narrowest(&selectors), selectors, filters })
    }

    /// The union of these is selected.
    pub(super) fn selectors(&self) -> &[Selector] {
        &self.selectors
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.stream
    }

    pub(super) fn filters(&self) -> &Filters {
        &self.filters
    }

    /// Whether this collection is selected.
    pub(super) fn contains(&self, namespace: &Namespace) -> bool {
        self.selectors.iter().any(|selector| selector.covers(namespace))
    }

    /// The database of an event that reports this one. A router may report another name: Atlas adds a prefix.
    pub(super) fn database<'a>(&'a self, reported: &'a str) -> &'a str {
        if let Stream::Database(name) = &self.stream {
            return name;
        }
        let selected = || self.selectors.iter().flat_map(Selector::inclusions).map(|pattern| &pattern.database);
        if selected().any(|database| database.matches(reported)) {
            return reported;
        }
        let names: BTreeSet<&str> =
            selected().filter_map(Glob::exact).filter(|name| reported.ends_with(name)).collect();
        match names.first() {
            Some(&only) if names.len() == 1 => only,
            _ => reported,
        }
    }

    /// The namespace in an event that stands for others, whose namespaces are unknown.
    pub(super) fn unknown(&self) -> Namespace {
        match &self.stream {
            Stream::Database(name) => Namespace::new(name, "unknown"),
            Stream::Deployment => Namespace::new("unknown", "unknown"),
        }
    }
}

/// Identifies the change stream of these selectors: its level and its condition.
pub(super) fn scope(selectors: &[Selector]) -> String {
    merged(selectors).iter().map(Selector::identity).collect::<Vec<_>>().join(" ")
}

/// The fewest selectors with the same union, so that another index of the same collections leaves the stream as it is:
/// those without exclusions become one, and those that it contains are dropped.
fn merged(selectors: &[Selector]) -> Vec<Selector> {
    let is_plain = |selector: &&Selector| selector.exclusions().next().is_none();
    let (plain, others): (Vec<&Selector>, Vec<&Selector>) = selectors.iter().partition(is_plain);
    let plain: Vec<NamespacePattern> = plain.into_iter().flat_map(Selector::patterns).cloned().collect();
    let whole = Selector::new(plain.clone());
    let adds =
        |selector: &&Selector| whole != Selector::new(plain.iter().chain(selector.inclusions()).cloned().collect());
    let mut merged: Vec<Selector> = others.into_iter().filter(adds).cloned().collect();
    if !plain.is_empty() {
        merged.push(whole);
    }
    merged.sort_unstable();
    merged.dedup();
    merged
}

/// The narrowest change stream with all of these collections.
fn narrowest(selectors: &[Selector]) -> Stream {
    let mut databases: Vec<Databases> = selectors.iter().map(Selector::databases).collect();
    databases.dedup();
    match databases.as_slice() {
        [Databases::One(name)] => Stream::Database(name.clone()),
        _ => Stream::Deployment,
    }
}

/// The databases in which a collection is selected by its name.
pub(super) fn databases_with_names(selectors: &[Selector]) -> BTreeSet<&str> {
    let inclusions = selectors.iter().flat_map(Selector::inclusions);
    let named = inclusions.filter(|pattern| pattern.collection.exact().is_some());
    named.filter_map(|pattern| pattern.database.exact()).collect()
}

/// Checks that names can be those of databases and collections.
///
/// # Errors
/// Fatal, with the setting of the short form: declared indexes check their patterns when they are read.
pub(super) fn check_names(selectors: &[Selector]) -> PortResult<()> {
    for NamespacePattern { database, collection, .. } in selectors.iter().flat_map(Selector::patterns) {
        let (database, collection) = (database.as_str(), collection.as_str());
        if database.is_empty() || database.contains(['/', '\\', '.', ' ', '"', '$', '<', '>', ':', '|', '?', '\0']) {
            return Err(PortError::fatal(format!("invalid mongodb.database {database:?}: expected a database name"))
                .with_hint("set mongodb.database to the database to index"));
        }
        if collection.is_empty() || collection.contains(['$', '\0']) || collection.starts_with("system.") {
            return Err(PortError::fatal(format!(
                "invalid mongodb.collection {collection:?}: expected a collection name"
            ))
            .with_hint("set mongodb.collection to names like \"tickets\" or patterns like \"orders_*\""));
        }
    }
    Ok(())
}

/// Checks that no view and no time series of this database is selected by name. Patterns exclude them.
pub(super) fn check_kinds(selectors: &[Selector], database: &str, listed: &[Listed]) -> PortResult<()> {
    for Listed { name, kind } in listed {
        let (what, hint) = match kind {
            Kind::Collection => continue,
            Kind::View => ("a view", "select the collection that the view reads"),
            Kind::TimeSeries => (
                "a time-series collection",
                "copy its documents into an ordinary collection, with $merge for example, and select that",
            ),
        };
        let namespace = Namespace::new(database, name);
        let is_name = |pattern: &NamespacePattern| {
            pattern.database.exact() == Some(database) && pattern.collection.exact() == Some(name.as_str())
        };
        let named = |selector: &Selector| selector.covers(&namespace) && selector.inclusions().any(is_name);
        if selectors.iter().any(named) {
            return Err(PortError::fatal(format!("{namespace} is {what}, which has no change stream")).with_hint(hint));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tidewheel_core::error::ErrorClass;
    use tidewheel_core::ports::SourceFilter;

    use super::*;

    fn selector(patterns: &[&str]) -> Selector {
        Selector::parse(patterns, None).unwrap()
    }

    fn selection(selectors: &[&[&str]]) -> Selection {
        let selectors = selectors.iter().map(|patterns| selector(patterns)).collect();
        Selection::new(&Coverage { selectors, filters: Vec::new() }).unwrap()
    }

    #[test]
    fn stream_is_the_narrowest_with_all_collections() {
        let shop = Stream::Database("shop".into());
        let table: [(&[&[&str]], Stream); 7] = [
            (&[&["shop.tickets"]], shop.clone()),
            (&[&["shop.tickets"], &["shop.notes_*", "!shop.notes_tmp"]], shop.clone()),
            (&[&["shop.*", "!other.*"]], shop),
            (&[&["shop.tickets"], &["crm.articles"]], Stream::Deployment),
            (&[&["shop.tickets", "crm.articles"]], Stream::Deployment),
            (&[&["sho*.tickets"]], Stream::Deployment),
            (&[&["*.tickets"]], Stream::Deployment),
        ];
        for (selectors, wanted) in table {
            assert_eq!(selection(selectors).stream(), &wanted, "{selectors:?}");
        }
    }

    #[test]
    fn scope_of_short_form_is_unchanged() {
        let scope = |names: &[&str]| scope(&[Selector::of_database("shop", names)]);
        assert_eq!(scope(&["tickets"]), r#"shop["tickets"]"#);
        assert_eq!(scope(&["b", "a", "b"]), r#"shop["a", "b"]"#);
        assert_eq!(scope(&["a", "*"]), "shop.*");
        assert_eq!(scope(&[]), "shop.*");
    }

    #[test]
    fn scope_depends_on_the_selected_collections_only() {
        let scope =
            |selectors: &[&[&str]]| scope(&selectors.iter().map(|patterns| selector(patterns)).collect::<Vec<_>>());
        let both = scope(&[&["shop.a"], &["shop.b"]]);
        assert_eq!(both, scope(&[&["shop.b", "shop.a"]]));
        assert_eq!(both, scope(&[&["shop.a"], &["shop.b"], &["shop.a"]]));
        assert_eq!(both, scope(&[&["shop.a", "shop.b"], &["shop.a", "!shop.c"]]), "a part of the others");
        let excluding = scope(&[&["shop.*", "!shop.a"]]);
        assert_eq!(excluding, scope(&[&["shop.*", "!shop.a"], &["shop.*", "!shop.a"]]));
        let others = [
            both,
            excluding,
            scope(&[&["shop.a"]]),
            scope(&[&["shop.*"]]),
            scope(&[&["crm.a"], &["shop.b"]]),
            scope(&[&["*.a"]]),
            scope(&[]),
        ];
        assert_eq!(others.iter().collect::<BTreeSet<_>>().len(), others.len(), "{others:?}");
    }

    #[test]
    fn namespace_is_selected_by_any_selector() {
        let selection = selection(&[&["shop.*", "!shop.tmp_*"], &["crm.articles"], &["shop.tmp_kept"]]);
        for (name, wanted) in [
            ("shop.tickets", true),
            ("shop.tmp_a", false),
            ("shop.tmp_kept", true),
            ("shop.system.views", false),
            ("crm.articles", true),
            ("crm.notes", false),
        ] {
            assert_eq!(selection.contains(&Namespace::parse(name).unwrap()), wanted, "{name}");
        }
    }

    #[test]
    fn reported_database_becomes_a_selected_one() {
        let one = selection(&[&["shop.tickets"]]);
        for reported in ["shop", "5f2b_shop", "", "other"] {
            assert_eq!(one.database(reported), "shop");
        }
        let several = selection(&[&["shop.tickets"], &["crm.articles", "eu_*.tickets"]]);
        for (reported, wanted) in [
            ("shop", "shop"),
            ("crm", "crm"),
            ("eu_shop", "eu_shop"),
            ("5f2b_shop", "shop"),
            ("5f2b_crm", "crm"),
            ("other", "other"),
        ] {
            assert_eq!(several.database(reported), wanted);
        }
        let ambiguous = selection(&[&["shop.tickets"], &["eshop.tickets"]]);
        assert_eq!(ambiguous.database("eshop"), "eshop");
        assert_eq!(ambiguous.database("5f2b_eshop"), "5f2b_eshop", "two names end it");
        assert_eq!(ambiguous.database("5f2b_shop"), "shop");
    }

    #[test]
    fn views_are_rejected_by_name_and_excluded_from_patterns() {
        let listed = |name: &str, kind| [Listed { name: name.into(), kind }];
        let check = |patterns: &[&str], listed: &[Listed]| check_kinds(&[selector(patterns)], "shop", listed);
        for kind in [Kind::View, Kind::TimeSeries] {
            let error = check(&["shop.open_*", "shop.open"], &listed("open", kind)).unwrap_err();
            assert!(error.message.contains("shop.open is a"), "{error}");
            assert!(error.hint.is_some());
            assert!(check(&["shop.open_*"], &listed("open_tickets", kind)).is_ok());
            assert!(check(&["shop.*"], &listed("open", kind)).is_ok());
            assert!(check(&["crm.open"], &listed("open", kind)).is_ok());
        }
        assert!(check(&["shop.open"], &listed("open", Kind::Collection)).is_ok());
        let named = [selector(&["shop.open", "crm.o*", "*.closed"]), selector(&["eu.a", "!us.a"])];
        assert_eq!(databases_with_names(&named), BTreeSet::from(["eu", "shop"]));
    }

    #[test]
    fn invalid_names_are_rejected() {
        let check = |database: &str, names: &[&str]| check_names(&[Selector::of_database(database, names)]);
        for database in ["", "a.b", "a b", "$x"] {
            assert!(check(database, &[]).is_err(), "{database:?}");
        }
        for collection in ["", "a$b", "system.users"] {
            assert!(check("shop", &[collection]).is_err(), "{collection:?}");
        }
        assert!(check("shop", &["tickets", "a.b", "orders_*"]).is_ok());
    }

    #[test]
    fn unsupported_filter_is_fatal() {
        let filters = vec![SourceFilter(r#"{"$where": "true"}"#.into())];
        let error = Selection::new(&Coverage { selectors: Vec::new(), filters }).unwrap_err();
        assert_eq!(error.class, ErrorClass::Fatal, "{error}");
    }
}
