// The line at the top of the page while the server cannot be reached.

import { connection } from "./api.js";
import { say } from "./screens.js";
import { text } from "./texts.js";

connection.addEventListener("lost", () => say("connection", text("connectionLost")));
connection.addEventListener("back", () => say("connection", ""));
