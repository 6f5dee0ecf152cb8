"""The door to the database: every function is one transaction and returns plain dicts."""

from upgrade_service.db.agents import agent_delete
from upgrade_service.db.agents import agent_enroll
from upgrade_service.db.agents import agent_facts
from upgrade_service.db.agents import agent_get
from upgrade_service.db.agents import agent_id
from upgrade_service.db.agents import agent_list
from upgrade_service.db.agents import agent_set_state
from upgrade_service.db.agents import agents_seen
from upgrade_service.db.agents import enroll_token_create
from upgrade_service.db.agents import strategy_rows
from upgrade_service.db.base import configure
from upgrade_service.db.base import get_engine
from upgrade_service.db.base import now
from upgrade_service.db.clusters import cluster_create
from upgrade_service.db.clusters import cluster_delete
from upgrade_service.db.clusters import cluster_discover
from upgrade_service.db.clusters import cluster_get
from upgrade_service.db.clusters import cluster_list
from upgrade_service.db.clusters import discovery_claim
from upgrade_service.db.clusters import discovery_failed
from upgrade_service.db.clusters import host_get
from upgrade_service.db.clusters import host_list
from upgrade_service.db.clusters import inventory_save
from upgrade_service.db.clusters import problem_list
from upgrade_service.db.clusters import service_list
from upgrade_service.db.clusters import service_summary
from upgrade_service.db.turns import Mismatch
from upgrade_service.db.turns import StepMove
from upgrade_service.db.turns import UpgradeMove
from upgrade_service.db.turns import note_late
from upgrade_service.db.turns import owner_turn
from upgrade_service.db.turns import ownership_claim
from upgrade_service.db.turns import ownership_release
from upgrade_service.db.turns import ownership_renew
from upgrade_service.db.turns import progress_save
from upgrade_service.db.upgrades import edge_list
from upgrade_service.db.upgrades import event_list
from upgrade_service.db.upgrades import idempotency_get
from upgrade_service.db.upgrades import idempotency_put
from upgrade_service.db.upgrades import plan_store
from upgrade_service.db.upgrades import step_get
from upgrade_service.db.upgrades import step_list
from upgrade_service.db.upgrades import step_output_get
from upgrade_service.db.upgrades import step_verb
from upgrade_service.db.upgrades import steps_changed
from upgrade_service.db.upgrades import upgrade_create
from upgrade_service.db.upgrades import upgrade_delete
from upgrade_service.db.upgrades import upgrade_get
from upgrade_service.db.upgrades import upgrade_list
from upgrade_service.db.upgrades import upgrade_verb

__all__ = [
    'Mismatch', 'StepMove', 'UpgradeMove',
    'agent_delete', 'agent_enroll', 'agent_facts', 'agent_get', 'agent_id', 'agent_list',
    'agent_set_state', 'agents_seen', 'cluster_create', 'cluster_delete', 'cluster_discover',
    'cluster_get', 'cluster_list', 'configure', 'discovery_claim', 'discovery_failed',
    'edge_list', 'enroll_token_create', 'event_list', 'get_engine', 'host_get', 'host_list',
    'idempotency_get', 'idempotency_put', 'inventory_save', 'note_late', 'now', 'owner_turn',
    'ownership_claim', 'ownership_release', 'ownership_renew', 'plan_store', 'problem_list',
    'progress_save', 'service_list', 'service_summary', 'step_get', 'step_list',
    'step_output_get', 'step_verb', 'steps_changed', 'strategy_rows', 'upgrade_create',
    'upgrade_delete', 'upgrade_get', 'upgrade_list', 'upgrade_verb',
]
