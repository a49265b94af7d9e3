"""An executor that shares no code with Podling: Python's standard library and the documentation.

It speaks JSON over TCP, runs each task's command with the shell, kills what it is told to, and ends when every task has
ended and every update is acknowledged. It does not survive the loss of its agent.
"""

import base64
import http.client
import json
import os
import subprocess
import sys
import threading
import time
import uuid

TERMINAL = ("TASK_FINISHED", "TASK_FAILED", "TASK_KILLED")
PATH = "/" + os.environ["MESOS_SLAVE_PID"].split("@")[0] + "/api/v1/executor"
IDS = {
    "executor_id": {"value": os.environ["MESOS_EXECUTOR_ID"]},
    "framework_id": {"value": os.environ["MESOS_FRAMEWORK_ID"]},
}
HEADERS = {"Content-Type": "application/json", "Accept": "application/json"}
if "MESOS_EXECUTOR_AUTHENTICATION_TOKEN" in os.environ:
    HEADERS["Authorization"] = "Bearer " + os.environ["MESOS_EXECUTOR_AUTHENTICATION_TOKEN"]


def connect():
    return http.client.HTTPConnection(os.environ["MESOS_AGENT_ENDPOINT"])


class Executor:
    def __init__(self):
        self.calls = connect()
        self.lock = threading.RLock()
        self.processes = {}
        self.killed = set()
        self.waiting = set()
        self.live = set()

    def call(self, **call):
        self.calls.request("POST", PATH, json.dumps({**IDS, **call}), HEADERS)
        answer = self.calls.getresponse()
        answer.read()
        assert answer.status == 202, answer.status

    def update(self, task, state):
        with self.lock:
            name = base64.b64encode(uuid.uuid4().bytes).decode()
            self.waiting.add(name)
            status = {
                "task_id": {"value": task},
                "state": state,
                "source": "SOURCE_EXECUTOR",
                "uuid": name,
                "timestamp": time.time(),
            }
            self.call(type="UPDATE", update={"status": status})

    def launch(self, task):
        name = task["task_id"]["value"]
        with self.lock:
            self.live.add(name)
            self.update(name, "TASK_STARTING")
            # In the executor's own process group: what a killed shell leaves behind ends with it.
            process = subprocess.Popen(["/bin/sh", "-c", task["command"]["value"]])
            self.processes[name] = process
            self.update(name, "TASK_RUNNING")
        threading.Thread(target=self.wait, args=(name, process), daemon=True).start()

    def wait(self, name, process):
        code = process.wait()
        with self.lock:
            state = "TASK_KILLED" if name in self.killed else "TASK_FAILED" if code else "TASK_FINISHED"
            self.live.discard(name)
            self.update(name, state)

    def kill(self, name):
        with self.lock:
            if name in self.live:
                self.killed.add(name)
                self.update(name, "TASK_KILLING")
                self.processes[name].kill()

    def run(self):
        stream = connect()
        stream.request("POST", PATH, json.dumps({**IDS, "type": "SUBSCRIBE", "subscribe": {}}), HEADERS)
        answer = stream.getresponse()
        if answer.status != 200:
            sys.exit("SUBSCRIBE: %d %s" % (answer.status, answer.read()))
        while True:
            length = b""
            while not length.endswith(b"\n"):
                byte = answer.read(1)
                if not byte:
                    sys.exit("the stream ended")
                length += byte
            event = json.loads(answer.read(int(length)))
            kind = event.get("type")
            if kind == "LAUNCH_GROUP":
                for task in event["launch_group"]["task_group"]["tasks"]:
                    self.launch(task)
            elif kind == "LAUNCH":
                self.launch(event["launch"]["task"])
            elif kind == "KILL":
                self.kill(event["kill"]["task_id"]["value"])
            elif kind == "SHUTDOWN":
                for name in list(self.live):
                    self.kill(name)
            elif kind == "ACKNOWLEDGED":
                with self.lock:
                    self.waiting.discard(event["acknowledged"]["uuid"])
            with self.lock:
                if not self.live and not self.waiting and kind != "SUBSCRIBED":
                    return


Executor().run()
