# Devstack plugin of the Upgrade Service.
#
# devstack sources this file once for each phase:
#   plugin.sh stack install|post-config|extra    plugin.sh unstack    plugin.sh clean
# In local.conf: enable_plugin upgrade-service https://opendev.org/openstack/upgrade-service

_XTRACE_UPGRADE_SERVICE=$(set +o | grep xtrace)
set +o xtrace

function upgrade_service_protocol {
    if is_service_enabled tls-proxy; then
        echo https
    else
        echo ${SERVICE_PROTOCOL:-http}
    fi
}

function upgrade_service_url {
    echo "$(upgrade_service_protocol)://$UPGRADE_SERVICE_HOST:$UPGRADE_SERVICE_PORT"
}

function upgrade_service_manage {
    $UPGRADE_SERVICE_BIN_DIR/upgrade-service-manage --config-file $UPGRADE_SERVICE_CONF "$@"
}

# install_upgrade_service - Install the checkout, its OpenStackClient commands included
function install_upgrade_service {
    git_clone $UPGRADE_SERVICE_REPO $UPGRADE_SERVICE_DIR $UPGRADE_SERVICE_BRANCH
    setup_develop $UPGRADE_SERVICE_DIR
}

# configure_upgrade_service - Write the configuration of API, conductor and engine
function configure_upgrade_service {
    sudo install -d -o $STACK_USER -m 755 $UPGRADE_SERVICE_CONF_DIR
    sudo install -d -o $STACK_USER -m 700 $UPGRADE_SERVICE_CONF_DIR/keys
    sudo install -d -m 755 $UPGRADE_SERVICE_CONF_DIR/engine.d
    sudo install -d -m 700 $UPGRADE_SERVICE_STATE_DIR

    rm -f $UPGRADE_SERVICE_CONF
    iniset $UPGRADE_SERVICE_CONF DEFAULT debug "$ENABLE_DEBUG_LOG_LEVEL"
    setup_logging $UPGRADE_SERVICE_CONF
    iniset_rpc_backend upgrade-service $UPGRADE_SERVICE_CONF
    # Work must outlive a restart of the broker.
    iniset $UPGRADE_SERVICE_CONF oslo_messaging_rabbit rabbit_quorum_queue True
    iniset $UPGRADE_SERVICE_CONF database connection \
        "$(database_connection_url upgrade_service)"
    iniset $UPGRADE_SERVICE_CONF api auth_strategy keystone
    configure_keystone_authtoken_middleware $UPGRADE_SERVICE_CONF upgrade
    iniset $UPGRADE_SERVICE_CONF conductor clouds_file $UPGRADE_SERVICE_CLOUDS
    iniset $UPGRADE_SERVICE_CONF trust keys_dir $UPGRADE_SERVICE_CONF_DIR/keys
    # devstack's broker speaks plain AMQP on SERVICE_HOST.
    iniset $UPGRADE_SERVICE_CONF trust insecure_lab True
    iniset $UPGRADE_SERVICE_CONF engine host "$(hostname)"
    iniset $UPGRADE_SERVICE_CONF engine state_dir $UPGRADE_SERVICE_STATE_DIR

    configure_upgrade_service_clouds
    configure_upgrade_service_uwsgi
}

# The conductor's way into the cloud; a cluster names this entry, never a password.
function configure_upgrade_service_clouds {
    rm -f $UPGRADE_SERVICE_CLOUDS
    (umask 077 && cat >$UPGRADE_SERVICE_CLOUDS) <<EOF
clouds:
  $UPGRADE_SERVICE_CLOUD:
    region_name: $REGION_NAME
    auth:
      auth_url: $KEYSTONE_SERVICE_URI
      username: upgrade
      password: $SERVICE_PASSWORD
      project_name: $SERVICE_PROJECT_NAME
      user_domain_name: $SERVICE_DOMAIN_NAME
      project_domain_name: $SERVICE_DOMAIN_NAME
EOF
}

function configure_upgrade_service_uwsgi {
    local port=$UPGRADE_SERVICE_PORT
    if is_service_enabled tls-proxy; then
        port=$UPGRADE_SERVICE_PORT_INT
    fi
    write_uwsgi_config "$UPGRADE_SERVICE_UWSGI_CONF" upgrade_service.api.wsgi:application \
        /upgrade ":$port" upgrade-api
}

# create_upgrade_service_accounts - Service user, roles, catalog entry
function create_upgrade_service_accounts {
    create_service_user upgrade admin
    get_or_create_role upgrade_reader
    get_or_create_role upgrade_operator
    get_or_create_service upgrade-service upgrade "Upgrade Service"
    get_or_create_endpoint upgrade "$REGION_NAME" "$(upgrade_service_url)"
}

# init_upgrade_service - Fresh database, signing keys
function init_upgrade_service {
    recreate_database upgrade_service
    upgrade_service_manage db upgrade
    upgrade_service_manage keys create
}

function start_upgrade_service {
    if is_service_enabled upgrade-api; then
        run_process upgrade-api \
            "$(which uwsgi) --procname-prefix upgrade-api --ini $UPGRADE_SERVICE_UWSGI_CONF"
        if is_service_enabled tls-proxy; then
            start_tls_proxy upgrade-api '*' $UPGRADE_SERVICE_PORT \
                $UPGRADE_SERVICE_HOST $UPGRADE_SERVICE_PORT_INT
        fi
        if ! wait_for_service $SERVICE_TIMEOUT "$(upgrade_service_url)/healthcheck"; then
            die $LINENO "upgrade-api did not start"
        fi
    fi
    run_process upgrade-conductor \
        "$UPGRADE_SERVICE_BIN_DIR/upgrade-service-conductor --config-file $UPGRADE_SERVICE_CONF"
    start_upgrade_service_engine
}

# The engine enrols with a one-time bundle, then runs as root: it upgrades packages and units.
function start_upgrade_service_engine {
    if ! is_service_enabled upgrade-engine; then
        return 0
    fi
    local bundle
    bundle=$(openstack --os-cloud devstack-admin upgrade agent enroll "$(hostname)" \
        -f value -c bundle) || die $LINENO "the engine of $(hostname) cannot be enrolled"
    (umask 077 && echo "$bundle" | sudo tee $UPGRADE_SERVICE_CONF_DIR/enroll.json >/dev/null)
    run_process upgrade-engine \
        "$UPGRADE_SERVICE_BIN_DIR/upgrade-service-engine --config-file $UPGRADE_SERVICE_CONF" \
        root root
}

function stop_upgrade_service {
    stop_process upgrade-engine
    stop_process upgrade-conductor
    stop_process upgrade-api
}

function cleanup_upgrade_service {
    remove_uwsgi_config "$UPGRADE_SERVICE_UWSGI_CONF" upgrade-api
    sudo rm -rf $UPGRADE_SERVICE_CONF_DIR $UPGRADE_SERVICE_STATE_DIR
}

UPGRADE_SERVICE_BIN_DIR=${UPGRADE_SERVICE_BIN_DIR:-$(get_python_exec_prefix)}

if is_service_enabled upgrade-api upgrade-conductor upgrade-engine; then
    if [[ "$1" == "stack" && "$2" == "install" ]]; then
        echo_summary "Installing the Upgrade Service"
        install_upgrade_service
    elif [[ "$1" == "stack" && "$2" == "post-config" ]]; then
        echo_summary "Configuring the Upgrade Service"
        configure_upgrade_service
        create_upgrade_service_accounts
    elif [[ "$1" == "stack" && "$2" == "extra" ]]; then
        echo_summary "Starting the Upgrade Service"
        init_upgrade_service
        start_upgrade_service
    elif [[ "$1" == "unstack" ]]; then
        stop_upgrade_service
    elif [[ "$1" == "clean" ]]; then
        cleanup_upgrade_service
    fi
fi

$_XTRACE_UPGRADE_SERVICE
