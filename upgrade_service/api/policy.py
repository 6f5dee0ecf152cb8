"""Asks the policy whether a request may be made."""

from oslo_config import cfg
from oslo_policy import opts, policy

from upgrade_service import context, exception, policies
from upgrade_service.policies import base

#: what to ask an administrator for, by the default of a rule
_NEEDS = {
    base.READER: 'role upgrade_reader',
    base.OPERATOR: 'role upgrade_operator',
    base.ADMIN: 'role admin',
}


def build(conf: cfg.ConfigOpts) -> policy.Enforcer:
    """Return an enforcer of our defaults and of the site's `policy.yaml` over them."""
    opts.set_defaults(conf, policy_file='policy.yaml')
    enforcer = policy.Enforcer(conf)
    enforcer.register_defaults(policies.list_rules())
    return enforcer


def get_enforcer() -> policy.Enforcer:
    """Return an enforcer for the tools of oslo.policy (`oslopolicy-checker` …)."""
    cfg.CONF([], project='upgrade-service')
    return build(cfg.CONF)


def allowed(enforcer: policy.Enforcer, ctx: context.RequestContext, rule: str) -> bool:
    """Tell whether the caller may do what `rule` guards."""
    try:
        return bool(enforcer.authorize(rule, {}, ctx))
    except policy.InvalidScope:
        return False


def authorize(enforcer: policy.Enforcer, ctx: context.RequestContext, rule: str) -> None:
    """Let a request pass, or not.

    :raises Forbidden: says which role the rule asks for by default.
    """
    if not allowed(enforcer, ctx, rule):
        check = enforcer.registered_rules[rule].check_str
        raise exception.Forbidden(needs=f'{_NEEDS.get(check, check)} (policy rule {rule})')
