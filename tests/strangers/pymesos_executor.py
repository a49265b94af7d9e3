"""An executor on pymesos' MesosExecutorDriver. Its tasks do nothing: a task named `waits…` runs until it is killed,
every other one finishes at once. Ends when all have ended, or at SHUTDOWN."""

import logging
import sys
import threading

from pymesos import Executor, MesosExecutorDriver


class Stranger(Executor):
    def __init__(self):
        self.running = set()
        self.unacknowledged = set()
        self.lock = threading.Lock()

    def registered(self, driver, executor_info, framework_info, agent_info):
        # What a client must be able to rely on after SUBSCRIBED.
        assert executor_info["executor_id"]["value"], executor_info
        assert framework_info["id"]["value"] and framework_info["user"], framework_info
        assert agent_info["hostname"] and agent_info["id"]["value"], agent_info

    def launchTask(self, driver, task):
        self.launchTaskGroup(driver, [task])

    def launchTaskGroup(self, driver, tasks):
        with self.lock:
            for task in tasks:
                self.running.add(task["task_id"]["value"])
        for task in tasks:
            self.send(driver, task["task_id"], "TASK_STARTING")
            self.send(driver, task["task_id"], "TASK_RUNNING")
        for task in tasks:
            if not task["name"].startswith("waits"):
                self.end(driver, task["task_id"], "TASK_FINISHED")

    def killTask(self, driver, task_id):
        self.end(driver, task_id, "TASK_KILLED")

    def frameworkMessage(self, driver, message):
        driver.sendFrameworkMessage(message)

    def shutdown(self, driver):
        with self.lock:
            running = sorted(self.running)
        for task in running:
            self.end(driver, {"value": task}, "TASK_KILLED")

    def error(self, driver, message):
        sys.exit("the agent says: %s" % message)

    def send(self, driver, task_id, state):
        driver.sendStatusUpdate({"task_id": task_id, "state": state})

    def end(self, driver, task_id, state):
        self.send(driver, task_id, state)
        with self.lock:
            self.running.discard(task_id["value"])
            if not self.running:
                driver.stop()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    MesosExecutorDriver(Stranger()).run()
