use std::sync::Arc;

use tidewheel_core::identity::{DocumentId, Namespace};

use super::super::options::Blank;
use super::super::planner::Planner;
use super::super::samples::{named, planner, planner_of};
use super::*;
use crate::targets::samples::declaration;

/// Dimension of the sample model.
const DIMENSION: usize = 2;

fn job(planner: &Arc<Planner>, key: &str, to: &[usize], prefix: &str, chunks: &[&str]) -> Job {
    Job {
        unit: 0,
        document: DocumentId::new(&Namespace::new("shop", "tickets"), key),
        operation: Operation::Update,
        to: to.to_vec(),
        planner: planner.clone(),
        chunks: chunks.iter().map(|chunk| (*chunk).to_owned()).collect(),
        prefix: prefix.to_owned(),
        limit: 256,
    }
}

fn known(job: &Job, lane: usize, chunk: u32, text: &str) -> Known {
    let fingerprint = job.planner.model.fingerprints.of(text);
    let vector = KnownVector { id: job.document.point(chunk), fingerprint, vector: vec![1.0, 0.0] };
    Known { lane, precision: 2, vector }
}

/// Jobs of one model.
fn reuse(jobs: &[Job], known: Vec<Known>) -> Reuse {
    Reuse::new(jobs, &Fingerprinted::new(jobs), known, &vec![0; jobs.len()], 1, |_| 2)
}

/// The texts to embed.
fn taken(reuse: &Reuse, jobs: &[Job]) -> Vec<String> {
    let mut jobs: Vec<Option<Job>> = jobs.iter().cloned().map(Some).collect();
    let before: Vec<Vec<String>> = jobs.iter().flatten().map(|job| job.chunks.clone()).collect();
    let texts = reuse.take_texts(0, &mut jobs);
    reuse.restore_texts(0, &mut jobs, texts.clone());
    assert_eq!(jobs.iter().flatten().map(|job| job.chunks.clone()).collect::<Vec<_>>(), before);
    texts
}

fn texts<'j>(saved: &[Saved<'j>]) -> Vec<Cow<'j, str>> {
    saved.iter().map(|(_, text)| text.clone()).collect()
}

#[test]
fn chunks_are_embedded_and_found_again_with_their_prefix() {
    let planner = planner(None, Blank::Index);
    let job = |key: &str, prefix: &str, chunk: &str| job(&planner, key, &[0], prefix, &[chunk]);
    let jobs = [job("1", "Late", "x"), job("2", "Early", "x"), job("3", "Late", "x"), job("4", "", "Late\nx")];
    let all = reuse(&jobs, Vec::new());
    assert_eq!(taken(&all, &jobs), ["Late\nx", "Early\nx"]);
    assert_eq!(texts(&all.saved(&jobs).1), ["Late\nx", "Late\nx"], "equal inputs are embedded once");

    let mut some = reuse(&jobs, vec![known(&jobs[0], 0, 0, "Late\nx")]);
    assert_eq!(taken(&some, &jobs), ["Early\nx"]);
    assert_eq!(texts(&some.saved(&jobs).0), ["Late\nx"; 3]);
    let vectors = some.vectors(0, &[], DIMENSION).unwrap().unwrap();
    assert_eq!((vectors.values(), some.take_unchanged(0)), (&[1.0, 0.0][..], vec![0]));
    assert!(some.take_unchanged(2).is_empty(), "the same text at another point");
    assert!(!some.embeds(0) && some.embeds(1));
    assert_eq!((some.reused(0), some.reused(1)), (1, 0));
    assert_eq!(some.vectors(1, &[None], DIMENSION), None, "pending");
}

#[test]
fn payload_alone_is_written_only_where_the_vectors_are_in_place() {
    let planner = planner(None, Blank::Index);
    let jobs = [job(&planner, "1", &[0, 1], "", &["ebb", "flow"])];
    let at = |lane, chunks: &[u32]| -> Vec<Known> {
        chunks.iter().map(|chunk| known(&jobs[0], lane, *chunk, ["ebb", "flow"][*chunk as usize])).collect()
    };
    for (stored, unchanged) in [
        (at(0, &[0, 1]), vec![0]),
        ([at(0, &[0]), at(1, &[0, 1])].concat(), vec![1]),
        ([at(0, &[0, 1]), at(1, &[0, 1])].concat(), vec![0, 1]),
        (Vec::new(), vec![]),
    ] {
        let embeds = stored.is_empty();
        let mut reuse = reuse(&jobs, stored);
        assert_eq!((reuse.take_unchanged(0), reuse.embeds(0)), (unchanged, embeds));
    }
    let blank = [job(&planner, "1", &[0], "", &[""])];
    let mut reuse = reuse(&blank, Vec::new());
    assert_eq!(reuse.vectors(0, &[], DIMENSION).unwrap().unwrap().values(), [0.0, 0.0]);
    assert_eq!((reuse.take_unchanged(0), reuse.embeds(0)), (vec![], false));
}

#[test]
fn each_model_has_its_own_texts() {
    let (small, large) = (planner(None, Blank::Index), planner_of(&declaration("tickets"), named("other")));
    let jobs = [
        job(&small, "1", &[0], "", &["ebb"]),
        job(&large, "1", &[1], "", &["ebb"]),
        job(&large, "2", &[1], "", &["ebb"]),
    ];
    let reuse = Reuse::new(&jobs, &Fingerprinted::new(&jobs), Vec::new(), &[0, 1, 1], 2, |_| 2);
    assert_eq!(reuse.todo, [vec![(0, 0)], vec![(1, 0)]]);
    assert_eq!(reuse.repeated, [(2, 0)]);
}

#[test]
fn vectors_are_not_taken_from_a_less_precise_collection() {
    let jobs = [job(&planner(None, Blank::Index), "1", &[1], "", &["ebb"])];
    let stored = |lane, precision| Known { precision, ..known(&jobs[0], lane, 0, "ebb") };
    let embeds =
        |known, precision: u8| Reuse::new(&jobs, &Fingerprinted::new(&jobs), known, &[0], 1, |_| precision).embeds(0);
    assert!(embeds(vec![stored(0, 1)], 2));
    assert!(!embeds(vec![stored(0, 1), stored(2, 2)], 2), "the most precise one counts");
    assert!(!embeds(vec![stored(2, 2), stored(0, 1)], 2));
    assert!(!embeds(vec![stored(0, 2)], 1));
}

#[test]
fn other_targets_are_asked_for_documents_that_are_new_to_their_own() {
    let planner = planner(None, Blank::Index);
    let sources = |job: &Job| job.to.iter().map(|lane| lane + 10).collect::<Vec<_>>();
    let elsewhere = |job: &Job, known: &[Known]| {
        let jobs = std::slice::from_ref(job);
        points_elsewhere(jobs, &Fingerprinted::new(jobs), known, sources)
    };
    let mut update = job(&planner, "1", &[0], "", &["ebb", "", "flow"]);
    let point = |chunk| update.document.point(chunk);
    let (ebb, flow) = (point(0), point(2));
    assert_eq!(own_points(std::slice::from_ref(&update)), Wanted::from([(0, vec![ebb, point(1), flow])]));
    assert_eq!(elsewhere(&update, &[]), Wanted::from([(10, vec![ebb, flow])]), "blank chunks need no vector");
    let found = [known(&update, 0, 0, "before")];
    assert_eq!(elsewhere(&update, &found), Wanted::new(), "its text has changed");
    update.operation = Operation::Read;
    assert_eq!(elsewhere(&update, &found), Wanted::from([(10, vec![ebb, flow])]), "a snapshot may re-embed it");
    let found = [known(&update, 0, 0, "ebb")];
    assert_eq!(elsewhere(&update, &found), Wanted::from([(10, vec![flow])]));
    update.operation = Operation::Insert;
    assert!(elsewhere(&update, &[]).is_empty() && own_points(std::slice::from_ref(&update)).is_empty());
}
