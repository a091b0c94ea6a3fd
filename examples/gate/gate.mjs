// A client of cgate for browsers and Node, in one module without dependencies; docs/api.md describes what it speaks.
//
//     import { Gate } from "./gate.mjs";
//     const gate = new Gate("http://127.0.0.1:8042", { token });   // in a page of cgate: new Gate("")
//     const job = await gate.run({ app: "wc", args: ["-l"], stdin: "a\nb\n" });
//     console.log(job.state, job.exit_status, await gate.output(job.id));
//     for await (const text of gate.follow(job.id)) console.log(text);
//     const talk = await gate.exec({ app: "shell", args: ["cat"] }, { stdout: bytes => console.log(bytes) });
//     talk.write("hello\n"); talk.end(); console.log((await talk.exit).exit_status);

export class Problem extends Error {
  constructor(document) {
    super(document.detail);
    this.document = document;
  }
}

export class Gate {
  // `token`: of `cgate token add`; without one the browser's cookie counts.
  constructor(url, { token = null, WebSocket = globalThis.WebSocket } = {}) {
    this.url = url;
    this.token = token;
    this.WebSocket = WebSocket;
  }

  async fetch(path, options = {}) {
    const headers = new Headers(options.headers);
    if (this.token) headers.set("Authorization", `Bearer ${this.token}`);
    const answer = await fetch(this.url + path, { ...options, headers });
    if (answer.headers.get("Content-Type") === "application/problem+json") throw new Problem(await answer.json());
    return answer;
  }

  async json(path, options) {
    return (await this.fetch(path, options)).json();
  }

  // Starts a job or a pool. `request`: the body of POST /v1/jobs.
  start(request, wait = 0) {
    return this.json(`/v1/jobs?wait=${wait}`, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request),
    });
  }

  // Runs a job to its end, however long that takes.
  async run(request) {
    let job = await this.start(request, 60);
    while (job.state === "queued" || job.state === "running") job = await this.json(`/v1/jobs/${job.id}?wait=60`);
    return job;
  }

  async output(id, stream = "stdout") {
    return (await this.fetch(`/v1/jobs/${id}/${stream}`)).text();
  }

  // Yields an output as it comes. It goes on where it was when the connection is lost.
  async *follow(id, stream = "stdout") {
    const decoder = new TextDecoder();
    for (let offset = 0; ; ) {
      try {
        const answer = await this.fetch(`/v1/jobs/${id}/${stream}?follow=1&offset=${offset}`);
        for (const reader = answer.body.getReader(); ; ) {
          const { done, value } = await reader.read();
          if (done) return;
          offset += value.length;
          yield decoder.decode(value, { stream: true });
        }
      } catch (error) {
        if (error instanceof Problem) throw error;
        const { state, exit_status, signal } = await this.json(`/v1/jobs/${id}`);
        if (state !== "queued" && state !== "running" && exit_status === null && signal === null) {
          throw new Error(`the output is not whole: the job is ${state}`);
        }
      }
    }
  }

  // A conversation with a program. `stdout`, `stderr`: called with the bytes (Uint8Array) that come.
  exec(request, { stdout = () => {}, stderr = () => {} } = {}) {
    const address = (this.url || location.origin).replace(/^http/, "ws") + "/v1/exec";
    // JavaScript sets no headers of a WebSocket: the token is offered as a subprotocol, and a cookie comes by itself.
    const socket = new this.WebSocket(address, this.token ? ["cgate.v1", `bearer.${this.token}`] : []);
    socket.binaryType = "arraybuffer";
    const sinks = { 1: stdout, 2: stderr };
    return new Promise((resolve, reject) => {
      const exit = new Promise((over, failed) => {
        socket.onopen = () => socket.send(JSON.stringify({ type: "start", ...request }));
        socket.onmessage = ({ data }) => {
          if (data instanceof ArrayBuffer) {
            const bytes = new Uint8Array(data);
            sinks[bytes[0]](bytes.subarray(1));
            return;
          }
          const message = JSON.parse(data);
          if (message.type === "job") resolve(new Conversation(socket, message.job.id, exit));
          else if (message.type === "exit") over(message.job);
          else if (message.type === "error") {
            reject(new Problem(message.problem));
            failed(new Problem(message.problem));
          }
        };
        socket.onclose = () => {
          reject(new Error("the connection was refused"));
          failed(new Error("the connection has ended before the job"));
        };
      });
      exit.catch(() => {}); // told by `reject`, too, if nobody waits for it
    });
  }
}

class Conversation {
  constructor(socket, id, exit) {
    this.socket = socket;
    this.id = id; // of the job
    this.exit = exit; // a promise of the job as it is when it is over
  }

  write(data) {
    const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
    const message = new Uint8Array(bytes.length + 1); // its first byte is the number of standard input, 0
    message.set(bytes, 1);
    this.socket.send(message);
  }

  end() {
    this.socket.send('{"type": "eof"}');
  }

  signal(name) {
    this.socket.send(JSON.stringify({ type: "signal", signal: name }));
  }

  cancel() {
    this.socket.send('{"type": "cancel"}');
  }
}
