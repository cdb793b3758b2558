"""A real controller process over a real ledger, routes file and admin port; only the databases of the move are faked.

Run as a program by test_controller_kill.py: PLAN LEDGER_DSN PROXY_URL.
"""

import asyncio
import signal
import sys
from pathlib import Path

from chassis import logs
from migration_plans.actions import World
from migration_plans.controller import Controller, Pace
from migration_plans.drivers.routes import RoutesFile
from migration_plans.ledger import Ledger
from migration_plans.plan import load_plan
from migration_plans.proxy_admin import ProxyAdmin
from migration_plans.testing import FakeChangeStream, FakeProber


async def walk(plan_path: Path, dsn: str, url: str) -> None:
    """Turn until SIGTERM."""
    plan = load_plan(plan_path)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    with Ledger(dsn) as ledger, Ledger(dsn) as side, ProxyAdmin(url) as admin:
        controller = Controller(
            plan=plan,
            ledger=ledger,
            side_ledger=side,
            world=World(RoutesFile(plan.routes, plan.group), admin, FakeChangeStream(), FakeProber()),
            outcomes=admin,
            pace=Pace(turn=0.02, stream=0.05, probe=0.02, again=0.1),
        )
        await controller.run(stop)


if __name__ == "__main__":
    logs.configure("controller")
    asyncio.run(walk(Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
