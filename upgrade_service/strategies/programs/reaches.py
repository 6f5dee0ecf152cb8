"""See that commands started with some options can reach scratch databases only.

    reaches.py PROJECT GROUP:OPTION,... NAME,... OPTIONS...

Run it with the interpreter and the environment that the commands get: whatever else sets a
connection, a directory of files or an environment variable, is then seen as they see it.
"""

import sys
from urllib import parse

from oslo_config import cfg


def main() -> int:
    """Compare the connections in effect with the names that are allowed."""
    project, options, allowed, args = (
        sys.argv[1],
        *(a.split(',') for a in sys.argv[2:4]),
        sys.argv[4:],
    )
    conf = cfg.ConfigOpts()
    names = [one.split(':') for one in options]
    for group, name in names:
        conf.register_opt(cfg.StrOpt(name, secret=True), group=group)
    conf(args, project=project)
    wrong = []
    for group, name in names:
        database = parse.urlsplit(conf[group][name] or '').path.lstrip('/')
        if database and database not in allowed:
            wrong.append(f'[{group}] {name} leads to {database}')
    print('; '.join(wrong) or f'only {", ".join(allowed)} can be reached')
    return int(bool(wrong))


if __name__ == '__main__':
    sys.exit(main())
