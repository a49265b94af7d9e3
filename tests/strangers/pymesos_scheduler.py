"""A scheduler on pymesos' MesosSchedulerDriver. Its standard input tells it what to do, a line at a time, with tabs
between the words: `launch EXECUTOR_JSON TASKS_JSON`, `launch-command TASKS_JSON`, `kill TASK`, `reconcile [TASK…]`,
`message EXECUTOR TEXT`, `decline`, `drop`, `stop`. Prints one JSON object for everything the master tells it."""

import json
import logging
import sys
import threading
import time
from base64 import b64decode, b64encode

from pymesos import MesosSchedulerDriver, Scheduler


def say(kind, **fields):
    sys.stdout.write(json.dumps(dict(fields, event=kind)) + "\n")
    sys.stdout.flush()


class Stranger(Scheduler):
    def __init__(self):
        self.offers = []
        self.agent = None
        self.arrived = threading.Condition()

    def registered(self, driver, framework_id, master_info):
        say("registered", framework=framework_id["value"], version=master_info.get("version"))

    def reregistered(self, driver, master_info):
        say("reregistered")

    def resourceOffers(self, driver, offers):
        for offer in offers:
            # What a client must be able to rely on in an offer.
            for resource in offer["resources"]:
                assert resource["type"] == ("RANGES" if resource["name"] == "ports" else "SCALAR"), offer
            assert all(r["allocation_info"]["role"] == "*" for r in offer["resources"]), offer
            assert offer["hostname"] and offer["framework_id"]["value"], offer
        with self.arrived:
            self.offers += offers
            self.arrived.notify()
        say("offers", count=len(offers))

    def disconnected(self, driver):
        with self.arrived:
            self.offers = []

    def take(self):
        """An offer of more than the leavings of a task."""

        def cpus(offer):
            return sum(r["scalar"]["value"] for r in offer["resources"] if r["name"] == "cpus")

        with self.arrived:
            self.arrived.wait_for(lambda: any(cpus(offer) > 1 for offer in self.offers), 20)
            offer = max(self.offers, key=cpus)
            self.offers.remove(offer)
        self.agent = offer["agent_id"]
        return offer

    def statusUpdate(self, driver, status):
        say(
            "update",
            task=status["task_id"]["value"],
            state=status["state"],
            reason=status.get("reason"),
            acknowledged="uuid" in status,
        )

    def executorLost(self, driver, executor_id, agent_id, status):
        say("executor lost", executor=executor_id["value"], status=status)

    def frameworkMessage(self, driver, executor_id, agent_id, message):
        say("message", text=b64decode(message).decode())

    def error(self, driver, message):
        say("error", message=message)


def main():
    stranger = Stranger()
    framework = {
        "user": "root",
        "name": "stranger",
        "failover_timeout": 60,
        "capabilities": [{"type": "PARTITION_AWARE"}],
    }
    driver = MesosSchedulerDriver(stranger, framework, sys.argv[1])
    driver.start()
    for line in sys.stdin:
        words = line.rstrip("\n").split("\t")
        if words[0] == "launch":
            offer = stranger.take()
            executor, tasks = json.loads(words[1]), json.loads(words[2])
            for task in tasks:
                task["agent_id"] = offer["agent_id"]
            group = {"executor": executor, "task_group": {"tasks": tasks}}
            operation = {"type": "LAUNCH_GROUP", "launch_group": group}
            driver.acceptOffers(offer["id"], [operation], {"refuse_seconds": 0.1})
        elif words[0] == "launch-command":
            offer = stranger.take()
            tasks = json.loads(words[1])
            for task in tasks:
                task["agent_id"] = offer["agent_id"]
            driver.launchTasks(offer["id"], tasks, {"refuse_seconds": 0.1})
        elif words[0] == "decline":
            driver.declineOffer(stranger.take()["id"], {"refuse_seconds": 0.1})
        elif words[0] == "kill":
            driver.killTask({"value": words[1]})
        elif words[0] == "reconcile":
            driver.reconcileTasks([{"task_id": {"value": task}} for task in words[1:]])
        elif words[0] == "message":
            driver.sendFrameworkMessage({"value": words[1]}, stranger.agent, b64encode(words[2].encode()).decode())
        elif words[0] == "drop":
            # The connection breaks; the driver comes back by itself.
            master = driver.master
            driver.change_master(None)
            while driver.connected:
                time.sleep(0.01)
            driver.change_master(master)
        elif words[0] == "stop":
            break
    driver.stop()
    driver.join()
    say("stopped")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    main()
