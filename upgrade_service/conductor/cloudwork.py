"""The threads in which the owner carries out cloud steps, each with the right to act.

A step already at work is not started again, so the broker may ask as often as it looks
at its rows.
"""

from collections.abc import Callable
from concurrent import futures
import threading
from typing import Any

from oslo_config import cfg
from oslo_log import log

from upgrade_service import exception, model
from upgrade_service.conductor import board as boards
from upgrade_service.conductor import cloud, ownership
from upgrade_service.db import api as db
from upgrade_service.strategies import base

LOG = log.getLogger(__name__)
Row = dict[str, Any]


class CloudWork:
    """Runs cloud steps of every upgrade this conductor owns."""

    def __init__(
        self,
        conf: cfg.ConfigOpts,
        leases: 'ownership.Leases',
        inventory: Callable[[Row], model.Inventory],
    ) -> None:
        self._conf, self._leases, self._inventory = conf, leases, inventory
        self._pool = futures.ThreadPoolExecutor(conf.conductor.cloud_workers, 'cloud')
        self._lock = threading.Lock()
        self._active: set[tuple[str, int]] = set()

    def start(self, owner: Any, row: Row, node: boards.Node) -> None:
        """Carry a step out, unless that is under way; `owner` (a broker) gets the outcome."""
        key = (node.id, node.attempt)
        with self._lock:
            if key in self._active:
                return
            self._active.add(key)
        self._pool.submit(self._run, owner, dict(row), _step(node), dict(node.progress or {}), key)

    def recheck(self, owner: Any, row: Row, node: boards.Node) -> None:
        """Look whether a drained host is still disabled and empty; `owner` hears what is wrong.

        `node`: the drain step of the host.
        """
        key = (f'recheck {node.id}', node.attempt)
        with self._lock:
            if key in self._active:
                return
            self._active.add(key)
        self._pool.submit(self._recheck, owner, dict(row), _step(node), key)

    def _recheck(self, owner: Any, row: Row, step: Row, key: tuple[str, int]) -> None:
        try:
            wrong = cloud.recheck(self._task(owner, row, step, {}))
        except (cloud.Interrupted, exception.LostOwnership):
            return
        except Exception as e:
            LOG.warning('looking at %s again failed: %s', step['host'], e)
            return
        finally:
            with self._lock:
                self._active.discard(key)
        owner.rechecked(step['host'], wrong)

    def survey(self, owner: Any, row: Row) -> None:
        """Look which services of the cloud are down; `owner` hears of it."""
        key = (f'survey {row["id"]}', 0)
        with self._lock:
            if key in self._active:
                return
            self._active.add(key)
        self._pool.submit(self._survey, owner, dict(row), key)

    def _survey(self, owner: Any, row: Row, key: tuple[str, int]) -> None:
        step: Row = {'id': '', 'kind': 'survey', 'host': None, 'project': None, 'params': {}}
        try:
            owner.surveyed(cloud.survey(self._task(owner, row, step, {})))
        except Exception as e:
            # it may be away because it is being upgraded: what was seen last still counts
            LOG.info('the services of the cloud cannot be looked at: %s', e)
        finally:
            with self._lock:
                self._active.discard(key)

    def stop(self) -> None:
        """Take no more steps; those under way end at their next safe point."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _run(self, owner: Any, row: Row, step: Row, progress: Row, key: tuple[str, int]) -> None:
        item = {'upgrade': row['id'], 'step': key[0], 'attempt': key[1]}
        try:
            task = self._task(owner, row, step, progress)
            started = self._leases.now()
            outcome = cloud.run(task)
            item.update(
                what='outcome',
                outcome=_said(outcome),
                started_at=started,
                finished_at=self._leases.now(),
            )
        except cloud.Interrupted:
            item.update(what='stopped')
        except exception.LostOwnership as e:
            LOG.warning('step %s (%s): %s', step['ord'], step['kind'], e)
            item.update(what='')
        except Exception as e:
            LOG.exception('step %s (%s) broke', step['ord'], step['kind'])
            failed = base.Outcome(result=base.Result.FAILED, error=f'{type(e).__name__}: {e}')
            item.update(what='outcome', outcome=_said(failed))
        finally:
            with self._lock:
                self._active.discard(key)
        if item['what']:
            owner.deliver(item)

    def _task(self, owner: Any, row: Row, step: Row, progress: Row) -> cloud.CloudTask:
        cluster = db.cluster_get(owner.ctx, row['cluster_id'])

        def save(what: Row) -> None:
            db.progress_save(owner.ctx, row['id'], owner.owner, owner.epoch, step['id'], what)

        def may_act(seconds: float) -> None:
            if self._leases.remaining(row['id'], owner.epoch) <= seconds:
                raise exception.LostOwnership(upgrade=row['id'], epoch=owner.epoch)

        def wait(seconds: float) -> None:
            owner.stopping.wait(seconds)

        return cloud.CloudTask(
            conf=self._conf,
            cluster=cluster,
            upgrade_id=row['id'],
            epoch=owner.epoch,
            step=step,
            policy=row['policy'],
            progress=progress,
            save=save,
            may_act=may_act,
            stopping=owner.stopping.is_set,
            wait=wait,
            inventory=lambda: self._inventory(cluster),
        )


def _step(node: boards.Node) -> Row:
    return {
        'id': node.id,
        'ord': node.ord,
        'kind': node.kind,
        'host': node.host,
        'project': node.project,
        'params': dict(node.params),
    }


def _said(outcome: base.Outcome) -> Row:
    return {
        'result': str(outcome.result),
        'rc': outcome.rc,
        'error': outcome.error,
        'output': outcome.output,
        'data': dict(outcome.data),
    }
