import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "./App";
import { applyTheme } from "./theme";
import "./styles/tokens.css";
import "./styles/base.css";
import "./styles/signIn.css";
import "./styles/panes.css";
import "./styles/menu.css";
import "./styles/list.css";
import "./styles/conversation.css";
import "./styles/message.css";
import "./styles/composer.css";
import "./styles/sheet.css";

applyTheme();
const root = document.getElementById("root");
if (root !== null) {
  createRoot(root).render(
    <StrictMode>
      <App />
    </StrictMode>,
  );
}
