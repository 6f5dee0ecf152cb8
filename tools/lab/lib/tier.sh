# What the tiers of the lab share: counted steps, the checks from outside, the end. They set TO and KEEP.
passed=0 failed=0 skipped=0

lab() { "$LAB_HOME/lab" "$@"; }
attempt() { # WHAT CMD...: run one counted step, say how long it took
    local what=$1 began=$SECONDS rc
    shift
    echo "\$ $*"
    "$@"
    rc=$?
    if [ $rc = 0 ]; then
        passed=$((passed + 1))
        echo "ok     $what ($((SECONDS - began)) s)"
    else
        failed=$((failed + 1))
        echo "FAILED $what: exit status $rc ($((SECONDS - began)) s)"
    fi
    return $rc
}
upgrade() { upgrade_cli upgrade "$@"; }

check_cloud() { # every check of check.py counts for itself
    local result line
    result=$(lab check "$TO" --json "$LAB_DIR/check.json")
    line=$(tail -1 <<<"$result")
    sed '$d' <<<"$result"
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed ]]; then
        passed=$((passed + BASH_REMATCH[1])) failed=$((failed + BASH_REMATCH[2]))
    else
        failed=$((failed + 1))
        echo "FAILED check.py did not end"
    fi
}
show_journals() { # what the service said last, on every host
    local h
    for h in $(hosts ctl; hosts cmp); do
        echo "--- $h"
        in_host "$h" journalctl -u 'upgrade-service-*' -n 40 --no-pager -o cat | cut -c1-300
    done
}
finish() {
    [ -e "$LAB_DIR/probe.pid" ] && lab probe stop
    [ "$failed" = 0 ] || show_journals
    [ "$KEEP" = 1 ] || lab down
    echo "$passed passed, $failed failed, $skipped skipped"
}
