//! Plans a change of declarations: the submission, what the source and the embedders report about it, and its costs.

use std::collections::BTreeSet;
use std::sync::Arc;

use tidewheel_core::catalog::{
    Action, ApplyOptions, Catalog, Choice, Declaration, IndexAction, IndexName, Needs, Part, Rounding, Rows, Selector,
    Submitted, TargetId, submit,
};
use tidewheel_core::error::{ErrorClass, PortError};
use tidewheel_core::ports::{Coverage, Embedders, Listed, PortResult, Source};

use super::details::Identities;
use super::estimate::{Maker, Question, estimate};
use super::plan::{Known, cost, index_plan};
use super::report::{Cost, IndexPlan, Plan, RateSource, Refused};
use super::sample::{Models, Rates, sample};
use super::watch::Look;
use super::{IndexesPorts, Planned, no_producer, outdated, running};

/// What estimates rest on.
#[derive(Clone, Copy)]
pub struct EstimatePorts<'a> {
    /// The source, also to check what it has to read.
    pub source: &'a dyn Source,
    /// The embedders, as the settings reach them.
    pub embedders: &'a dyn Embedders,
}

/// What to plan.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// The declarations in the settings.
    pub declared: Vec<Declaration>,
    /// Whether they are the short form of one index.
    pub short_form: bool,
    /// How to submit them. What servers report is added.
    pub options: ApplyOptions,
    /// Documents to sample for each index.
    pub sample: usize,
    /// Whether vectors that collections have are reused.
    pub reuse: bool,
}

/// The state from which a plan starts.
struct Base {
    look: Look,
    /// The applied catalog; before that, the short form.
    catalog: Catalog,
    /// Whether no producer has run yet.
    is_new: bool,
}

impl Base {
    async fn at(ports: &IndexesPorts, request: &PlanRequest) -> PortResult<Self> {
        // Fails if this release cannot use the keys.
        ports.registry.installation().await?;
        let look = Look::at(ports).await?;
        let catalog = look.catalog.clone();
        let is_new = catalog.is_short_form() && look.checkpoint.is_none();
        if !catalog.is_short_form() {
            return Ok(Self { look, catalog, is_new });
        }
        let local = request.declared.first().filter(|_| request.short_form);
        let catalog = match (ports.store.plain().await?, local) {
            (Some(plain), _) => Catalog::short_form(Arc::new(plain)),
            (None, Some(local)) => Catalog::short_form(Arc::new(local.clone())),
            (None, None) if is_new => Catalog::default(),
            (None, None) => {
                return Err(PortError::fatal("the settings by which the index was made are unknown").with_hint(
                    "start the producer of this release once with these settings, without [[index]]: it records them",
                ));
            }
        };
        Ok(Self { look, catalog, is_new })
    }
}

/// Plans what the declarations change, and what that costs. Changes nothing.
///
/// # Errors
/// If this release cannot use the keys, or a server fails that is needed to tell.
pub async fn plan(ports: &IndexesPorts, world: EstimatePorts<'_>, request: &PlanRequest) -> PortResult<Planned> {
    let base = Base::at(ports, request).await?;
    let mut models = Models::new(world.embedders);
    let submitted = submission(ports, &base, request, &mut models).await?;
    let mut refused: Vec<Refused> = submitted.refused.iter().cloned().map(Refused::from).collect();
    refused.extend(refusals_of_source(world.source, &base.catalog, &considered(request)).await?);
    refused.extend(refusal_of_other_settings(&base.catalog, request, &submitted));
    refused.extend(refusals_of_embedders(&base.catalog, request, &submitted, &mut models).await);
    // What is refused may be what an estimate would read.
    let estimates = refused.is_empty();
    let rates = Rates::new(&*ports.reports);
    let mut planner = Planner { ports, world, request, base: &base, models, rates, estimates };
    let mut indexes = Vec::with_capacity(submitted.actions.len());
    for action in &submitted.actions {
        indexes.push(planner.index(action).await?);
    }
    if submitted.is_new() && !submitted.has_work() {
        for index in &mut indexes {
            index.details.push("its declaration replaces the short form".to_owned());
        }
    }
    let running = running(&base.look, &request.options.only);
    let todo = submitted.is_new() || submitted.has_work();
    let mut warnings = planner.models.warnings;
    if base.is_new && !request.short_form {
        warnings.push("no producer has run yet: its first start applies the declarations".to_owned());
    } else if todo || !running.is_empty() {
        warnings.extend(no_producer(ports).await?);
    }
    let (revision, current) = (base.look.catalog.revision, base.catalog);
    let planned = Planned { plan: Plan { revision, todo, indexes, running, refused, warnings }, current, submitted };
    with_outdated(ports, planned).await
}

/// Adds a warning of processes that its submission would stop.
async fn with_outdated(ports: &IndexesPorts, mut planned: Planned) -> PortResult<Planned> {
    if planned.raises_layout() {
        let outdated = outdated(ports).await?;
        if !outdated.is_empty() {
            let names = outdated.join(", ");
            planned.plan.warnings.push(format!("processes of an earlier release have to be upgraded first: {names}"));
        }
    }
    Ok(planned)
}

/// What the declarations lead to, given what servers report.
async fn submission(
    ports: &IndexesPorts,
    base: &Base,
    request: &PlanRequest,
    models: &mut Models<'_>,
) -> PortResult<Submitted> {
    let Listed { collections, aliases } = ports.collections.list().await?;
    if base.is_new {
        refuse_lost_catalog(ports, &collections, &request.declared).await?;
    }
    let mut options = ApplyOptions { collections, aliases, adopt: !request.short_form, ..request.options.clone() };
    let submitted = |options: &ApplyOptions| {
        submit(&base.catalog, &request.declared, &Choice::Declared(options.clone()), base.look.now_ms)
    };
    let first = submitted(&options);
    for action in &first.actions {
        let after = request.declared.iter().find(|declaration| declaration.name == action.index);
        let depends = |after: &&Declaration| action.difference.has(Part::Embedding) || after.embedding.is_nameless();
        if let Some(after) = after.filter(depends)
            && let Some(identity) = models.of(&after.embedding).await.identity()
        {
            options.reported.insert(action.index.clone(), identity.clone());
        }
    }
    // A model that returns the vectors of the earlier one needs no new generation. What has only the name of an embedder may
    // stand for another model now.
    Ok(if options.reported.is_empty() { first } else { submitted(&options) })
}

/// Fails if collections hold the declared indexes although no catalog states that: Redis was wiped, and a producer restores
/// the catalog from the records.
async fn refuse_lost_catalog(
    ports: &IndexesPorts,
    collections: &BTreeSet<String>,
    declared: &[Declaration],
) -> PortResult<()> {
    for name in collections {
        let target = name.parse::<TargetId>().ok();
        let is_declared = target.is_some_and(|target| declared.iter().any(|one| one.name == target.index));
        if is_declared && ports.collections.open(name).record().await?.is_some() {
            return Err(PortError::fatal(format!(
                "collection {name:?} holds an index that was applied, but Redis has no catalog"
            ))
            .with_hint(
                "start the producer: it restores the catalog from the collections, or applies the declarations",
            ));
        }
    }
    Ok(())
}

/// The declarations that the request is about.
fn considered(request: &PlanRequest) -> Vec<&Declaration> {
    let only = &request.options.only;
    request.declared.iter().filter(|declaration| only.is_empty() || only.contains(&declaration.name)).collect()
}

/// What the source refuses: filters, kinds of collections, missing rights.
async fn refusals_of_source(
    source: &dyn Source,
    catalog: &Catalog,
    declared: &[&Declaration],
) -> PortResult<Vec<Refused>> {
    let applied = catalog.routed().map(|(_, generation)| &*generation.declaration);
    let error = match source.check(&coverage(declared.iter().copied().chain(applied))).await {
        Ok(()) => return Ok(Vec::new()),
        Err(error) if error.class != ErrorClass::Fatal => return Err(error),
        Err(error) => error,
    };
    let refused = |index: Option<&IndexName>, error: PortError| Refused {
        index: index.cloned(),
        reason: error.message,
        hint: error.hint.unwrap_or_default(),
    };
    let mut all = Vec::new();
    for declaration in declared.iter().copied() {
        match source.check(&coverage([declaration])).await {
            Ok(()) => {}
            Err(error) if error.class == ErrorClass::Fatal => all.push(refused(Some(&declaration.name), error)),
            Err(error) => return Err(error),
        }
    }
    if all.is_empty() {
        all.push(refused(None, error));
    }
    Ok(all)
}

/// Refuses to drop every index because settings declare none of them: without `[[index]]` they are the short form of
/// another index, and most likely not those of this installation.
fn refusal_of_other_settings(catalog: &Catalog, request: &PlanRequest, submitted: &Submitted) -> Option<Refused> {
    if !request.short_form || catalog.is_short_form() || !request.options.only.is_empty() {
        return None;
    }
    let ends_or_begins = |action: &IndexAction| matches!(action.action, Action::Drop | Action::Create);
    let mut dropped = submitted.actions.iter().filter(|action| action.action == Action::Drop);
    let is_all = dropped.next().is_some() && submitted.actions.iter().all(ends_or_begins);
    is_all.then(|| Refused {
        index: None,
        reason: "the settings have no [[index]], and every applied index would be dropped".to_owned(),
        hint: "check --config and TIDEWHEEL_CONFIG; to drop indexes nevertheless, name each of them with --index"
            .to_owned(),
    })
}

/// Refuses models that the running embedders will not compute as declared: what needs their vectors would wait. Only a
/// rounding to 8 bits depends on the CPU.
async fn refusals_of_embedders(
    catalog: &Catalog,
    request: &PlanRequest,
    submitted: &Submitted,
    models: &mut Models<'_>,
) -> Vec<Refused> {
    let mut refused = Vec::new();
    for action in &submitted.actions {
        let declaration = request.declared.iter().find(|declaration| declaration.name == action.index);
        // Before a catalog is applied, services use whatever the embedder computes.
        let is_first = catalog.is_short_form() && submitted.is_new();
        let embeds = |declaration: &&Declaration| {
            declaration.embedding.rounding == Rounding::Int8 && (is_first || action.needs.is_some())
        };
        let Some(declaration) = declaration.filter(embeds) else { continue };
        if let Some(error) = models.of(&declaration.embedding).await.refusal.clone() {
            let hint = error.hint.unwrap_or_default();
            refused.push(Refused { index: Some(action.index.clone()), reason: error.message, hint });
        }
    }
    refused
}

/// What these declarations read.
fn coverage<'a>(declarations: impl IntoIterator<Item = &'a Declaration>) -> Coverage {
    let (mut selectors, mut filters) = (BTreeSet::new(), BTreeSet::new());
    for declaration in declarations {
        selectors.insert(declaration.source.clone());
        filters.extend(declaration.filter.clone());
    }
    Coverage { selectors: selectors.into_iter().collect(), filters: filters.into_iter().collect() }
}

/// Describes the actions of one submission.
struct Planner<'a> {
    ports: &'a IndexesPorts,
    world: EstimatePorts<'a>,
    request: &'a PlanRequest,
    base: &'a Base,
    models: Models<'a>,
    rates: Rates<'a>,
    /// Whether costs are estimated.
    estimates: bool,
}

impl Planner<'_> {
    async fn index(&mut self, action: &IndexAction) -> PortResult<IndexPlan> {
        let name = &action.index;
        let serving = self.base.catalog.indexes.get(name).and_then(|index| index.serving_generation());
        let before = serving.and_then(|(_, generation)| generation.embedder.clone());
        let is_known = |number: u32| self.base.catalog.generation(&name.target(number)).is_some();
        let exists = action.generation.is_some_and(is_known);
        let points = self.points(&action.deleted).await;
        let (mut cost, mut after) = (None, None);
        if let (Some(needs), Some(declaration)) = (action.needs, &action.after)
            && self.estimates
        {
            let model = self.models.of(&declaration.embedding).await;
            after = model.identity().cloned();
            cost = Some(self.cost(action, declaration, needs).await?);
        }
        let identities = Identities { before: before.as_ref(), after: after.as_ref() };
        Ok(index_plan(action, Known { identities, exists, points, cost }))
    }

    /// Points in these collections; `None` if they are unknown.
    async fn points(&self, collections: &[String]) -> Option<u64> {
        let mut all = 0;
        for name in collections {
            all += self.ports.collections.open(name).count().await.ok()?.unwrap_or(0);
        }
        (!collections.is_empty()).then_some(all)
    }

    async fn cost(&mut self, action: &IndexAction, after: &Arc<Declaration>, needs: Needs) -> PortResult<Cost> {
        let model = self.models.of(&after.embedding).await;
        let is_in_place = !matches!(action.action, Action::Create | Action::Generation);
        let before = action.before.as_ref().filter(|_| is_in_place);
        let mut filters = Vec::new();
        let mut maker = |declaration: &Arc<Declaration>| {
            Maker::new(declaration.clone(), &mut filters, model.tokens.clone(), model.max_tokens)
        };
        let mut question = Question {
            after: maker(after)?,
            before: before.map(&mut maker).transpose()?,
            known: Vec::new(),
            reuses: self.request.reuse,
            missing_only: is_in_place && needs.rows == Rows::Missing,
        };
        if self.request.reuse {
            for declaration in self.reusable(action, after, is_in_place) {
                question.known.push(maker(declaration)?);
            }
        }
        let selectors: Vec<&Selector> = [Some(after), before].into_iter().flatten().map(|one| &one.source).collect();
        let samples = sample(self.world.source, &selectors, &filters, self.request.sample).await?;
        let estimated = tokio::task::spawn_blocking(move || estimate(&samples, &question)).await;
        let estimated = estimated.map_err(|panic| PortError::fatal(format!("failed to estimate: {panic}")))?;
        let rate = if estimated.tokens == 0 {
            (None, RateSource::Unknown)
        } else {
            self.rates.of(&after.embedding, &model, &estimated.inputs).await
        };
        Ok(cost(&estimated, after, &model, rate, self.pace(&action.index)))
    }

    /// The pace of the last snapshot of this index, or else of any other one.
    fn pace(&self, name: &IndexName) -> Option<u64> {
        let catalog = &self.base.catalog;
        let own = catalog.indexes.get(name).and_then(|index| index.serving_generation()?.1.pace);
        let newest = || {
            let paces = catalog.routed().filter_map(|(_, generation)| Some((generation.filled, generation.pace?)));
            paces.max().map(|(_, pace)| pace)
        };
        own.or_else(newest)
    }

    /// The declarations of other filled collections whose vectors are those of the declared model.
    fn reusable(
        &self,
        action: &IndexAction,
        after: &Declaration,
        is_in_place: bool,
    ) -> impl Iterator<Item = &Arc<Declaration>> {
        let model = after.parts().get(Part::Embedding);
        let (name, number) = (action.index.clone(), action.generation);
        self.base.catalog.routed().filter_map(move |(target, generation)| {
            let is_other = target.index != name || (!is_in_place && Some(target.generation) != number);
            let is_equal = generation.declaration.parts().get(Part::Embedding) == model;
            (is_other && is_equal && generation.is_filled()).then_some(&generation.declaration)
        })
    }
}

#[cfg(test)]
mod tests;
