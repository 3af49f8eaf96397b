//! The services of a supervised switch, and the orders they are given.
//!
//! **Rule:** what no version could be blamed for makes none of them bad: units that are masked, or that nobody knows.
//!
//! **Invariant:** what is stopped for a switch is started again, whether the switch is made or not.

use std::time::{Duration, Instant};

use super::Supervision;
use crate::config::Service;
use crate::error::{Result, chain};
use crate::model::Role;
use crate::model::event::Evidence;
use crate::observe::Observer;
use crate::ops::plan::PlannedService;
use crate::ops::preflight;
use crate::ops::switching::Warnings;
use crate::services::affected::Affected;
use crate::services::{Activity, Patience, ServiceManager, UnitState, Verdict, answer_limit, discover, watch};
use crate::store::Store;

/// How long a manager may take to read what defines its units, however short the times of the services are.
const RELOAD_LIMIT: Duration = Duration::from_secs(30);

/// How units are brought up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Those that run are stopped before.
    Restart,
    /// Those that run stay as they are.
    Start,
}

/// The services, and who handles them.
pub(super) struct Units<'a> {
    pub(super) supervision: &'a Supervision<'a>,
    pub(super) services: Vec<Service>,
    pub(super) observer: &'a dyn Observer,
    pub(super) warnings: &'a Warnings<'a>,
}

impl<'a> Units<'a> {
    pub(super) fn manager(&self) -> &'a dyn ServiceManager {
        self.supervision.manager
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.services.iter().map(|service| service.unit.clone()).collect()
    }

    /// How long an order may take: as long as the slowest service may.
    fn longest(&self) -> Duration {
        self.services.iter().map(|service| service.timeout).max().unwrap_or_default().max(Duration::from_secs(1))
    }

    /// How these units run, as far as the manager says so in time; nothing if it cannot be asked.
    pub(super) fn states(&self, units: &[String]) -> Vec<UnitState> {
        match units {
            [] => Vec::new(),
            units => self.manager().states(units, answer_limit(self.longest())).unwrap_or_default(),
        }
    }

    /// Whether one of them must not see a switch.
    pub(super) fn any_stops_first(&self) -> bool {
        self.services.iter().any(|service| service.stop_first)
    }

    /// The services that are watched after a switch: what is restarted, and what ran before and must go on.
    pub(super) fn watched(&self, restarted: &[Affected], states: &[UnitState]) -> Vec<Service> {
        let watched = self.planned(restarted, states).into_iter().filter(|one| one.action.is_watched());
        watched.map(|one| one.service).collect()
    }

    /// What a switch does to each service.
    pub(super) fn planned(&self, restarted: &[Affected], states: &[UnitState]) -> Vec<PlannedService> {
        let runs = |unit: &str| states.iter().any(|state| state.unit == unit && state.activity == Activity::Active);
        let planned = self.services.iter().map(|service| {
            let restarted = restarted.iter().find(|one| one.unit == service.unit);
            PlannedService::of(service, restarted, runs(&service.unit))
        });
        planned.collect()
    }

    /// Stops those of these units that must not see a switch; gives them.
    pub(super) fn stop_first(&self, restarted: &[Affected]) -> Vec<String> {
        let first = self.planned(restarted, &[]).into_iter().filter(|one| one.stops_first);
        let units: Vec<String> = first.map(|one| one.service.unit).collect();
        if !units.is_empty() {
            (self.supervision.say)(&format!("stopping {}", units.join(", ")));
            let goes_on = || !self.observer.interrupted();
            let patience = Patience { limit: self.longest(), keep_on: &goes_on };
            if let Err(error) = self.manager().stop(&units, patience) {
                self.warnings.warn(&format!("{} could not be stopped before: {}", units.join(", "), chain(&error)));
            }
            if goes_on() {
                self.warn_of_running(&units);
            }
        }
        units
    }

    /// Says which of these were to be stopped and run on, with what they have open and loaded.
    fn warn_of_running(&self, units: &[String]) {
        for UnitState { unit, activity, detail, .. } in self.states(units) {
            if matches!(activity, Activity::Active | Activity::Changing) {
                let why = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                self.warnings.warn(&format!(
                    "{unit} was ordered to stop before the switch, and still runs, so that it sees the switch{why}"
                ));
            }
        }
    }

    /// Has the manager read anew what defines units. That it fails is only said: what then runs is watched.
    pub(super) fn reload(&self) {
        let goes_on = || !self.observer.interrupted();
        let patience = Patience { limit: self.longest().max(RELOAD_LIMIT), keep_on: &goes_on };
        if let Err(error) = self.manager().reload(patience) {
            self.warnings.warn(&format!("what defines units could not be read anew: {}", chain(&error)));
        }
    }

    /// Waits until what a process that died had ordered has ended.
    pub(super) fn settle_orders(&self, units: &[String]) {
        let goes_on = || !self.observer.interrupted();
        self.manager().settle_orders(units, Patience { limit: self.longest(), keep_on: &goes_on });
    }

    /// Brings units up, for as long as that is wanted.
    pub(super) fn bring_up(&self, order: Order, units: &[String], keep_on: &dyn Fn() -> bool) -> Result<()> {
        let patience = Patience { limit: self.longest(), keep_on };
        match order {
            _ if units.is_empty() => Ok(()),
            Order::Restart => self.manager().restart(units, patience),
            Order::Start => self.manager().start(units, patience),
        }
    }

    /// Brings units up and watches services, of which some `ran` before. Gives a verdict for each, or why the manager would
    /// not even bring the units up.
    pub(super) fn try_out(
        &self,
        (order, units): (Order, &[String]),
        watched: &[Service],
        ran: &dyn Fn(&str) -> bool,
        keep_on: &dyn Fn() -> bool,
    ) -> (Vec<Verdict>, Option<Evidence>) {
        let (begun, manager) = (Instant::now(), self.manager());
        match self.bring_up(order, units, keep_on) {
            Ok(()) => (watch(manager, watched, ran, begun, keep_on), None),
            Err(error) => {
                let evidence = Evidence { check: manager.name().into(), detail: chain(&error), ..Evidence::default() };
                (Vec::new(), Some(evidence))
            }
        }
    }

    /// Brings units up whatever happens; that it fails is only said.
    pub(super) fn bring_back(&self, order: Order, units: &[String]) {
        if let Err(error) = self.bring_up(order, units, &|| true) {
            self.warnings.warn(&format!("{} could not be started again: {}", units.join(", "), chain(&error)));
        }
    }
}

/// The services, and how they run, without those that are masked: they are left alone.
///
/// # Errors
///
/// The manager cannot be asked.
pub(super) fn known(store: &Store, supervision: &Supervision<'_>) -> Result<(Vec<Service>, Vec<UnitState>)> {
    let manager = supervision.manager;
    let services = discover::services(manager, supervision.configured, store.layout())?;
    let units: Vec<String> = services.iter().map(|service| service.unit.clone()).collect();
    let limit = answer_limit(services.iter().map(|service| service.timeout).max().unwrap_or_default());
    let states = if units.is_empty() { Vec::new() } else { manager.states(&units, limit)? };
    let mut known = (Vec::new(), Vec::new());
    for (service, state) in services.into_iter().zip(states) {
        match state.activity {
            Activity::Masked => (supervision.say)(&format!("{} is masked, and left alone", service.unit)),
            _ => {
                known.0.push(service);
                known.1.push(state);
            }
        }
    }
    Ok(known)
}

/// Takes out the services that the manager cannot load and that no version brings along, but for those that are `kept`: an
/// order that names one of them would be refused for all.
pub(super) fn leave_absent(
    store: &Store,
    supervision: &Supervision<'_>,
    (services, states): (Vec<Service>, Vec<UnitState>),
    kept: &dyn Fn(&str) -> bool,
) -> (Vec<Service>, Vec<UnitState>) {
    let roles = store.refs().and_then(|refs| refs.read());
    let is_brought = |unit: &str| match &roles {
        Ok(roles) => Role::ALL
            .into_iter()
            .filter_map(|role| roles.version(role))
            .any(|version| preflight::comes_with(store, version, unit)),
        Err(_) => true,
    };
    let left = |unit: &str, state: &UnitState| {
        let absent = state.activity == Activity::Absent && !kept(unit) && !is_brought(unit);
        if absent {
            let why = match state.detail.as_str() {
                "not-found" => format!("there is no {unit}"),
                why => format!("{unit} cannot be loaded ({why})"),
            };
            (supervision.say)(&format!("{why}; it is left alone"));
        }
        absent
    };
    services.into_iter().zip(states).filter(|(service, state)| !left(&service.unit, state)).unzip()
}
