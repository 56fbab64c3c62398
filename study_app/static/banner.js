// The line at the top of the page while the server cannot be reached.

import { connection } from "./api.js";
import { say } from "./screens.js";

const LOST = "No connection at the moment. Your answers are kept, and the study goes on by itself when it is back.";

connection.addEventListener("lost", () => say("connection", LOST));
connection.addEventListener("back", () => say("connection", ""));
