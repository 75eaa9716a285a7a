//! Each operator on documents. Expectations without a comment are examples or rules of the manual.

use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, DateTime, Decimal128, Document, RawDocument, Regex, Timestamp, doc};

use super::{Query, QueryError};

fn matches(query: &Document, document: &Document) -> bool {
    let query = Query::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let bytes = document.to_vec().unwrap();
    query.matches(RawDocument::from_bytes(&bytes).unwrap())
}

/// Asserts which of the documents the query selects, by position.
fn selects(query: &Document, documents: &[Document], expected: &[usize]) {
    let selected: Vec<usize> = (0..documents.len()).filter(|at| matches(query, &documents[*at])).collect();
    assert_eq!(selected, expected, "{query}");
}

fn decimal(text: &str) -> Bson {
    Bson::Decimal128(text.parse().unwrap())
}

fn regex(pattern: &str, options: &str) -> Bson {
    let (pattern, options) = (pattern.to_owned().try_into().unwrap(), options.to_owned().try_into().unwrap());
    Bson::RegularExpression(Regex { pattern, options })
}

fn rejected(query: &Document) -> String {
    Query::parse(query).map(|_| ()).expect_err(&query.to_string()).to_string()
}

#[test]
fn empty_query_and_comment_select_everything() {
    assert!(matches(&doc! {}, &doc! {"a": 1}));
    assert!(matches(&doc! {"$comment": "why"}, &doc! {}));
    assert!(!matches(&doc! {"$comment": "why", "a": 1}, &doc! {"a": 2}));
}

#[test]
fn equality_compares_numbers_of_all_types_by_value() {
    let numbers = [
        doc! {"a": 1},
        doc! {"a": 1_i64},
        doc! {"a": 1.0},
        doc! {"a": decimal("1.0")},
        doc! {"a": decimal("10E-1")},
        doc! {"a": 1.5},
        doc! {"a": "1"},
        doc! {"a": true},
        doc! {},
    ];
    for one in [Bson::Int32(1), Bson::Int64(1), Bson::Double(1.0), decimal("1"), decimal("0.1E1")] {
        selects(&doc! {"a": one.clone()}, &numbers, &[0, 1, 2, 3, 4]);
        selects(&doc! {"a": {"$eq": one.clone()}}, &numbers, &[0, 1, 2, 3, 4]);
        selects(&doc! {"a": {"$ne": one}}, &numbers, &[5, 6, 7, 8]);
    }
}

#[test]
fn numbers_compare_exactly() {
    let above = (1_i64 << 53) + 1;
    let double = (1_i64 << 53) as f64;
    assert!(!matches(&doc! {"a": above}, &doc! {"a": double}));
    assert!(matches(&doc! {"a": {"$lt": above}}, &doc! {"a": double}));
    assert!(matches(&doc! {"a": decimal("9007199254740993")}, &doc! {"a": above}));
    assert!(!matches(&doc! {"a": decimal("0.1")}, &doc! {"a": 0.1}));
    assert!(matches(&doc! {"a": {"$gt": decimal("0.1")}}, &doc! {"a": 0.1}));
    assert!(matches(&doc! {"a": {"$gt": f64::MAX}}, &doc! {"a": decimal("1E+6144")}));
    assert!(matches(&doc! {"a": {"$lt": 5e-324}}, &doc! {"a": decimal("1E-6176")}));
    assert!(matches(&doc! {"a": {"$lt": i64::MIN}}, &doc! {"a": f64::NEG_INFINITY}));
    assert!(matches(&doc! {"a": {"$gt": i64::MAX}}, &doc! {"a": 9_223_372_036_854_775_808.0}));
    assert!(matches(&doc! {"a": 0}, &doc! {"a": -0.0}));
    assert!(matches(&doc! {"a": 0}, &doc! {"a": decimal("-0E+100")}));
    assert!(matches(&doc! {"a": f64::INFINITY}, &doc! {"a": decimal("Infinity")}));
    assert!(matches(&doc! {"a": {"$lt": -1}}, &doc! {"a": decimal("-1.5")}));
    // 35 digits, which is not canonical and counts as zero.
    let mut bits = ((6176_u128 << 113) | ((1 << 113) - 1)).to_le_bytes();
    assert!(matches(&doc! {"a": 0}, &doc! {"a": Decimal128::from_bytes(bits)}));
    bits[15] = 0x6C;
    assert!(matches(&doc! {"a": 0}, &doc! {"a": Decimal128::from_bytes(bits)}));
}

#[test]
fn nan_equals_nan_only() {
    let documents = [doc! {"a": f64::NAN}, doc! {"a": decimal("NaN")}, doc! {"a": 1}, doc! {"a": f64::NEG_INFINITY}];
    for nan in [Bson::Double(f64::NAN), decimal("NaN")] {
        for operator in ["$eq", "$gte", "$lte"] {
            selects(&doc! {"a": {operator: nan.clone()}}, &documents, &[0, 1]);
        }
        for operator in ["$gt", "$lt"] {
            selects(&doc! {"a": {operator: nan.clone()}}, &documents, &[]);
        }
        selects(&doc! {"a": {"$in": [nan]}}, &documents, &[0, 1]);
    }
    selects(&doc! {"a": {"$lt": 5}}, &documents, &[2, 3]);
}

#[test]
fn comparisons_match_values_of_the_operands_type_only() {
    let id = |last| ObjectId::from_bytes([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    let binary = |subtype, bytes: &[u8]| Bson::Binary(Binary { subtype, bytes: bytes.to_vec() });
    let generic = BinarySubtype::Generic;
    let pairs: Vec<(Bson, Bson)> = vec![
        (Bson::Int32(1), Bson::Double(2.5)),
        ("B".into(), "a".into()),
        ("a".into(), "a\0".into()),
        ("z".into(), "é".into()),
        (doc! {"a": 1}.into(), doc! {"a": 1, "b": 0}.into()),
        (doc! {"a": 2.5, "b": 0}.into(), doc! {"b": 1}.into()),
        (doc! {"b": 1}.into(), doc! {"a": "x"}.into()),
        (vec![1, 2].into(), vec![1, 3].into()),
        (vec![1, 2].into(), vec![1, 2, 0].into()),
        (binary(generic, b"z"), binary(generic, b"aa")),
        (binary(generic, b"z"), binary(BinarySubtype::Uuid, b"a")),
        (binary(generic, b"a"), binary(generic, b"b")),
        (id(1).into(), id(2).into()),
        (false.into(), true.into()),
        (DateTime::from_millis(-1).into(), DateTime::from_millis(0).into()),
        (Timestamp { time: 1, increment: 9 }.into(), Timestamp { time: 4_000_000_000, increment: 1 }.into()),
        (Bson::JavaScriptCode("f".into()), Bson::JavaScriptCode("g".into())),
    ];
    for (at, (less, greater)) in pairs.iter().enumerate() {
        let document = |value: &Bson| doc! {"a": {"b": value.clone()}};
        for (operator, selected) in [("$lt", [true, false]), ("$lte", [true, true]), ("$eq", [false, true])] {
            let query = doc! {"a.b": {operator: greater.clone()}};
            let result = [matches(&query, &document(less)), matches(&query, &document(greater))];
            assert_eq!(result, selected, "pair {at} {query}");
        }
        for (operator, selected) in [("$gt", [false, true]), ("$gte", [true, true])] {
            let query = doc! {"a.b": {operator: less.clone()}};
            let result = [matches(&query, &document(less)), matches(&query, &document(greater))];
            assert_eq!(result, selected, "pair {at} {query}");
        }
    }
    // Other types, and missing fields, are on neither side.
    for operator in ["$lt", "$gt", "$lte", "$gte"] {
        let query = doc! {"a": {operator: "m"}};
        selects(&query, &[doc! {"a": 1}, doc! {"a": Bson::Null}, doc! {}, doc! {"a": {}}, doc! {"a": true}], &[]);
    }
}

#[test]
fn symbols_compare_as_strings() {
    let symbol = Bson::Symbol("a".into());
    assert!(matches(&doc! {"a": "a"}, &doc! {"a": symbol.clone()}));
    assert!(matches(&doc! {"a": symbol}, &doc! {"a": "a"}));
}

#[test]
fn min_key_and_max_key_enclose_every_value() {
    // Observed: also a missing one.
    let documents = [doc! {"a": 1}, doc! {"a": "x"}, doc! {}, doc! {"a": Bson::MinKey}, doc! {"a": Bson::MaxKey}];
    selects(&doc! {"a": {"$gt": Bson::MinKey}}, &documents, &[0, 1, 2, 4]);
    selects(&doc! {"a": {"$gte": Bson::MinKey}}, &documents, &[0, 1, 2, 3, 4]);
    selects(&doc! {"a": {"$lt": Bson::MaxKey}}, &documents, &[0, 1, 2, 3]);
    selects(&doc! {"a": Bson::MinKey}, &documents, &[3]);
    selects(&doc! {"a": {"$gt": 0}}, &documents, &[0]);
}

#[test]
fn null_matches_missing_fields() {
    let documents = [
        doc! {"a": Bson::Null},
        doc! {},
        doc! {"a": Bson::Undefined},
        doc! {"a": 0},
        doc! {"a": [Bson::Null]},
        doc! {"a": []},
    ];
    for query in [doc! {"a": Bson::Null}, doc! {"a": {"$in": [Bson::Null, 7]}}, doc! {"a": {"$lte": Bson::Null}}] {
        selects(&query, &documents, &[0, 1, 2, 4]);
    }
    selects(&doc! {"a": {"$gt": Bson::Null}}, &documents, &[]);
    selects(&doc! {"a": {"$ne": Bson::Null}}, &documents, &[3, 5]);
    selects(&doc! {"a": {"$nin": [Bson::Null]}}, &documents, &[3, 5]);
    // Observed: a path through an array of scalars denotes nothing.
    let nested = [doc! {"a": 1}, doc! {"a": {}}, doc! {"a": [1, 2]}, doc! {"a": []}, doc! {"a": [{"b": 1}, {}]}];
    selects(&doc! {"a.b": Bson::Null}, &nested, &[0, 1, 4]);
    selects(&doc! {"a.b": {"$exists": false}}, &nested, &[0, 1, 2, 3]);
}

#[test]
fn documents_are_equal_field_by_field_in_order() {
    let documents = [doc! {"a": {"x": 1, "y": 2}}, doc! {"a": {"y": 2, "x": 1}}, doc! {"a": {"x": 1}}, doc! {"a": {}}];
    selects(&doc! {"a": {"x": 1.0, "y": 2_i64}}, &documents, &[0]);
    selects(&doc! {"a": {}}, &documents, &[3]);
    let reference = doc! {"a": {"$ref": "users", "$id": 1}};
    assert!(matches(&reference, &reference));
    // Observed: only the first name decides whether a document consists of operators.
    let mixed = doc! {"a": {"b": 1, "$gt": 2}};
    assert!(matches(&mixed, &mixed));
}

#[test]
fn arrays_match_by_element_or_as_a_whole() {
    let documents = [doc! {"a": [1, 2]}, doc! {"a": [2, 1]}, doc! {"a": [[1, 2], 3]}, doc! {"a": 1}, doc! {"a": []}];
    selects(&doc! {"a": 1}, &documents, &[0, 1, 3]);
    selects(&doc! {"a": [1, 2]}, &documents, &[0, 2]);
    selects(&doc! {"a": {"$gt": 1, "$lt": 2}}, &documents, &[0, 1]);
    selects(&doc! {"a": {"$ne": 1}}, &documents, &[2, 4]);
    selects(&doc! {"a": []}, &documents, &[4]);
}

#[test]
fn in_matches_values_and_expressions() {
    let documents = [doc! {"a": 1}, doc! {"a": "abc"}, doc! {"a": ["x", 2]}, doc! {"a": regex("^a", "")}, doc! {}];
    selects(&doc! {"a": {"$in": [1.0, 2, regex("^a", "")]}}, &documents, &[0, 1, 2, 3]);
    selects(&doc! {"a": {"$nin": [1.0, 2, regex("^a", "")]}}, &documents, &[4]);
    selects(&doc! {"a": {"$in": []}}, &documents, &[]);
    selects(&doc! {"a": {"$in": [["x", 2]]}}, &documents, &[2]);
}

#[test]
fn logical_operators_combine_queries() {
    let documents = [doc! {"a": 1, "b": 1}, doc! {"a": 1}, doc! {"b": 1}, doc! {}];
    selects(&doc! {"$and": [{"a": 1}, {"b": 1}]}, &documents, &[0]);
    selects(&doc! {"$or": [{"a": 1}, {"b": 1}]}, &documents, &[0, 1, 2]);
    selects(&doc! {"$nor": [{"a": 1}, {"b": 1}]}, &documents, &[3]);
    selects(&doc! {"$or": [{"a": 1, "b": 1}, {"$nor": [{"a": 1}, {"b": 1}]}]}, &documents, &[0, 3]);
}

#[test]
fn not_also_matches_missing_fields() {
    let documents = [doc! {"a": 1}, doc! {"a": 5}, doc! {}, doc! {"a": "x"}, doc! {"a": [1, 5]}];
    selects(&doc! {"a": {"$not": {"$gt": 3}}}, &documents, &[0, 2, 3]);
    selects(&doc! {"a": {"$not": {"$not": {"$gt": 3}}}}, &documents, &[1, 4]);
    selects(&doc! {"a": {"$not": regex("x", "")}}, &documents, &[0, 1, 2, 4]);
    selects(&doc! {"a": {"$not": {"$regex": "x"}}}, &documents, &[0, 1, 2, 4]);
}

#[test]
fn exists_matches_null_too() {
    let documents = [doc! {"a": Bson::Null}, doc! {}, doc! {"a": []}];
    selects(&doc! {"a": {"$exists": true}}, &documents, &[0, 2]);
    selects(&doc! {"a": {"$exists": 0}}, &documents, &[1]);
}

#[test]
fn type_accepts_names_numbers_and_arrays_of_them() {
    let documents = [doc! {"a": 1}, doc! {"a": 1_i64}, doc! {"a": "x"}, doc! {"a": ["x", Bson::Null]}, doc! {}];
    selects(&doc! {"a": {"$type": "int"}}, &documents, &[0]);
    selects(&doc! {"a": {"$type": "number"}}, &documents, &[0, 1]);
    selects(&doc! {"a": {"$type": 2}}, &documents, &[2, 3]);
    selects(&doc! {"a": {"$type": 10.0}}, &documents, &[3]);
    selects(&doc! {"a": {"$type": "array"}}, &documents, &[3]);
    selects(&doc! {"a": {"$type": ["long", 2_i64]}}, &documents, &[1, 2, 3]);
    selects(&doc! {"a": {"$not": {"$type": "null"}}}, &documents, &[0, 1, 2, 4]);
}

#[test]
fn size_counts_elements_of_arrays() {
    let documents = [doc! {"a": []}, doc! {"a": [1]}, doc! {"a": [[1], [2]]}, doc! {"a": 1}, doc! {}];
    selects(&doc! {"a": {"$size": 0}}, &documents, &[0]);
    selects(&doc! {"a": {"$size": 1.0}}, &documents, &[1]);
    selects(&doc! {"a": {"$size": 2}}, &documents, &[2]);
    selects(&doc! {"a.0": {"$size": 1}}, &documents, &[2]);
}

#[test]
fn all_requires_every_value() {
    let documents = [doc! {"a": [1, 2, 3]}, doc! {"a": [1]}, doc! {"a": 1}, doc! {"a": [[1, 2]]}, doc! {}];
    selects(&doc! {"a": {"$all": [1, 2]}}, &documents, &[0]);
    selects(&doc! {"a": {"$all": [1]}}, &documents, &[0, 1, 2]);
    selects(&doc! {"a": {"$all": [[1, 2]]}}, &documents, &[3]);
    selects(&doc! {"a": {"$all": []}}, &documents, &[]);
    selects(&doc! {"a": {"$all": [Bson::Null]}}, &documents, &[4]);
    let elements = doc! {"a": {"$all": [{"$elemMatch": {"$gt": 2}}, {"$elemMatch": {"$lt": 2}}]}};
    selects(&elements, &documents, &[0]);
    selects(&doc! {"a": {"$all": [regex("x", "")]}}, &[doc! {"a": ["y", "xy"]}, doc! {"a": 1}], &[0]);
}

#[test]
fn elem_match_requires_one_element_to_match_everything() {
    let documents = [doc! {"a": [1, 9]}, doc! {"a": [5]}, doc! {"a": 5}, doc! {"a": [[5]]}, doc! {"a": []}];
    selects(&doc! {"a": {"$elemMatch": {"$gt": 3, "$lt": 7}}}, &documents, &[1]);
    selects(&doc! {"a": {"$elemMatch": {"$not": {"$lt": 3}}}}, &documents, &[0, 1, 3]);
    selects(&doc! {"a": {"$elemMatch": {"$elemMatch": {"$eq": 5}}}}, &documents, &[3]);
    // Observed: an array in the array is a document with its indexes as names.
    selects(&doc! {"a": {"$elemMatch": {"0": 5}}}, &documents, &[3]);
    let items = [
        doc! {"a": [{"x": 1, "y": 2}, {"x": 2, "y": 1}]},
        doc! {"a": [{"x": 1, "y": 1}]},
        doc! {"a": {"x": 1, "y": 1}},
        doc! {"a": [1]},
    ];
    selects(&doc! {"a": {"$elemMatch": {"x": 1, "y": 1}}}, &items, &[1]);
    selects(&doc! {"a.x": 1, "a.y": 1}, &items, &[0, 1, 2]);
    selects(&doc! {"a": {"$elemMatch": {"$or": [{"x": 2}, {"z": 1}]}}}, &items, &[0]);
    selects(&doc! {"a": {"$elemMatch": {}}}, &items, &[0, 1]);
    selects(&doc! {"a": {"$elemMatch": {"z": Bson::Null}}}, &items, &[0, 1]);
}

#[test]
fn mod_rounds_towards_zero() {
    let documents = [
        doc! {"a": 5},
        doc! {"a": 5.9},
        doc! {"a": decimal("5.9")},
        doc! {"a": decimal("5E+1")},
        doc! {"a": -5},
        doc! {"a": f64::NAN},
        doc! {"a": 1e300},
        doc! {"a": decimal("1E+6000")},
        doc! {"a": "5"},
        doc! {"a": i64::MIN},
    ];
    selects(&doc! {"a": {"$mod": [4, 1]}}, &documents, &[0, 1, 2]);
    selects(&doc! {"a": {"$mod": [4.9, 1.2]}}, &documents, &[0, 1, 2]);
    selects(&doc! {"a": {"$mod": [4, -1]}}, &documents, &[4]);
    selects(&doc! {"a": {"$mod": [25, 0]}}, &documents, &[3]);
    selects(&doc! {"a": {"$mod": [-1, 0]}}, &documents, &[0, 1, 2, 3, 4, 9]);
}

#[test]
fn regex_matches_strings_and_equal_expressions() {
    let documents = [doc! {"a": "Abc"}, doc! {"a": ["x", "abc"]}, doc! {"a": regex("^a", "i")}, doc! {"a": 1}, doc! {}];
    selects(&doc! {"a": regex("^a", "")}, &documents, &[1]);
    selects(&doc! {"a": regex("^a", "i")}, &documents, &[0, 1, 2]);
    selects(&doc! {"a": {"$regex": "^a", "$options": "i"}}, &documents, &[0, 1, 2]);
    selects(&doc! {"a": {"$options": "i", "$regex": regex("^a", "")}}, &documents, &[0, 1, 2]);
    selects(&doc! {"a": {"$eq": regex("^a", "i")}}, &documents, &[2]);
}

#[test]
fn strings_with_invalid_utf_8_compare_by_bytes() {
    // {a: "\xFF"}
    let bytes = b"\x0E\0\0\0\x02a\0\x02\0\0\0\xFF\0\0";
    let document = RawDocument::from_bytes(&bytes[..]).unwrap();
    let matches = |query: &Document| Query::parse(query).unwrap().matches(document);
    assert!(matches(&doc! {"a": {"$gt": "z"}}));
    assert!(matches(&doc! {"a": {"$type": "string"}}));
    assert!(!matches(&doc! {"a": {"$regex": ""}}));
}

#[test]
fn paths_enter_documents_and_arrays() {
    for (path, document, wanted) in [
        ("a.b.c", doc! {"a": {"b": {"c": 1}}}, true),
        ("a.b", doc! {"a": [{"b": 2}, {"b": 1}]}, true),
        ("a.b", doc! {"a": [{"b": [2, 1]}]}, true),
        ("a.b.c", doc! {"a": [{"b": [{"c": 1}]}]}, true),
        ("a.0", doc! {"a": [1, 2]}, true),
        ("a.1", doc! {"a": [1, 2]}, false),
        ("a.0.b", doc! {"a": [{"b": 1}]}, true),
        ("a.1.b", doc! {"a": [{"b": 1}]}, false),
        ("a.0", doc! {"a": {"0": 1}}, true),
        ("a.0", doc! {"a": [{"0": 1}]}, true),
        ("a.00", doc! {"a": [1]}, false),
        // Observed: nested arrays are entered by index only, and an array at an index is not expanded.
        ("a.b", doc! {"a": [[{"b": 1}]]}, false),
        ("a.0.b", doc! {"a": [[{"b": 1}]]}, true),
        ("a.0", doc! {"a": [[1, 2]]}, false),
        ("a.0.0", doc! {"a": [[1, 2]]}, true),
        ("a", doc! {"a": [[1]]}, false),
    ] {
        assert_eq!(matches(&doc! {path: 1}, &document), wanted, "{path} {document}");
    }
}

#[test]
fn unsupported_operators_are_rejected_by_name() {
    for operator in ["$where", "$expr", "$text", "$jsonSchema", "$sampleRate", "$ref"] {
        let error = rejected(&doc! {"$or": [{"a": 1}, {operator: 1}]});
        assert!(error.contains(operator) && error.contains("\"$or.1\""), "{error}");
        assert!(error.contains("$and") && error.contains("$nor"), "{error}");
    }
    for operator in ["$near", "$geoWithin", "$bitsAllSet", "$and", "$comment", "b"] {
        let error = rejected(&doc! {"a.b": {"$gt": 1, operator: [1]}});
        assert!(error.contains(&format!("operator {operator} at \"a.b\"")), "{error}");
        assert!(error.contains("$elemMatch"), "{error}");
    }
    let error = rejected(&doc! {"$where": "this.a"});
    assert_eq!(error, "unsupported query operator $where at the top level: expected one of $and, $comment, $nor, $or");
    let error = Query::parse(&doc! {"a": {"$elemMatch": {"$where": 1}}}).unwrap_err();
    assert!(matches!(error, QueryError::UnsupportedOperator { .. }), "{error}");
}

#[test]
fn invalid_operands_are_rejected_with_their_path() {
    for (path, query) in [
        ("$and", doc! {"$and": []}),
        ("$or", doc! {"$or": [1]}),
        ("$nor", doc! {"$nor": {}}),
        ("a.$in", doc! {"a": {"$in": 1}}),
        ("a.$in", doc! {"a": {"$in": [{"$gt": 1}]}}),
        ("a.$in", doc! {"a": {"$in": [Bson::Undefined]}}),
        ("a.$nin", doc! {"a": {"$nin": "x"}}),
        ("a", doc! {"a": Bson::Undefined}),
        ("a.$gt", doc! {"a": {"$gt": Bson::Undefined}}),
        ("a.$gt", doc! {"a": {"$gt": regex("x", "")}}),
        ("a.$ne", doc! {"a": {"$ne": regex("x", "")}}),
        ("a.$not", doc! {"a": {"$not": {}}}),
        ("a.$not", doc! {"a": {"$not": 1}}),
        ("a.$exists", doc! {"a": {"$exists": "x"}}),
        ("a.$type", doc! {"a": {"$type": []}}),
        ("a.$type", doc! {"a": {"$type": "missing"}}),
        ("a.$type", doc! {"a": {"$type": 0}}),
        ("a.$size", doc! {"a": {"$size": -1}}),
        ("a.$size", doc! {"a": {"$size": 1.5}}),
        ("a.$all", doc! {"a": {"$all": 1}}),
        ("a.$all.0", doc! {"a": {"$all": [{"$gt": 1}]}}),
        ("a.$all.1", doc! {"a": {"$all": [{"$elemMatch": {}}, 1]}}),
        ("a.$elemMatch", doc! {"a": {"$elemMatch": 1}}),
        ("a.$mod", doc! {"a": {"$mod": [0, 1]}}),
        ("a.$mod", doc! {"a": {"$mod": [1]}}),
        ("a.$mod", doc! {"a": {"$mod": [1, 1, 1]}}),
        ("a.$mod", doc! {"a": {"$mod": [f64::NAN, 1]}}),
        ("a.$mod", doc! {"a": {"$mod": [decimal("Infinity"), 1]}}),
        ("a.$options", doc! {"a": {"$options": "i"}}),
        ("a.$options", doc! {"a": {"$regex": "x", "$options": 1}}),
        ("a.$regex", doc! {"a": {"$regex": 1}}),
        ("a.$regex", doc! {"a": {"$regex": "a\0"}}),
        ("a.$regex", doc! {"a": {"$regex": regex("x", "i"), "$options": "i"}}),
        ("a..b", doc! {"a..b": 1}),
    ] {
        let error = rejected(&query);
        assert!(error.contains(&format!("at {path:?}")), "{query}: {error}");
    }
    let error = rejected(&doc! {"a": {"$regex": "(?=x)"}});
    assert!(error.contains("\"a.$regex\"") && error.contains("(?="), "{error}");
}

#[test]
fn depth_is_limited() {
    let nested = |levels: usize| (0..levels).fold(doc! {"a": 1}, |query, _| doc! {"$and": [query]});
    assert!(Query::parse(&nested(40)).is_ok());
    assert!(rejected(&nested(60)).contains("depth"));
}
