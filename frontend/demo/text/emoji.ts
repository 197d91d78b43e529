export type Emoji = { readonly text: string; readonly name: string };
export type EmojiGroup = { readonly title: string; readonly emoji: readonly Emoji[] };

const group = (title: string, list: string): EmojiGroup => ({
  title,
  emoji: list
    .trim()
    .split(/\n\s*/u)
    .map((line) => {
      const [text = "", ...words] = line.split(" ");
      return { text, name: words.join(" ") };
    }),
});

/** Offered first, on every message. */
export const QUICK: readonly string[] = ["👍", "❤️", "😂", "🎉", "😮", "😢"];

export const GROUPS: readonly EmojiGroup[] = [
  group(
    "Faces",
    `😀 grinning
    😂 tears of joy
    🙂 slight smile
    😉 wink
    😊 smiling eyes
    😍 heart eyes
    😎 sunglasses
    🤔 thinking
    😐 neutral
    😴 sleeping
    😮 surprised
    😢 crying
    😭 sobbing
    😡 angry
    🥳 partying
    🤯 mind blown
    🫠 melting
    🙃 upside down`,
  ),
  group(
    "Hands and hearts",
    `👍 thumbs up
    👎 thumbs down
    👏 clapping
    🙌 raised hands
    🙏 thank you
    👋 waving
    💪 strong
    🤝 handshake
    👀 eyes
    ❤️ red heart
    🧡 orange heart
    💚 green heart
    💙 blue heart
    💜 purple heart
    🖤 black heart
    💔 broken heart
    ✨ sparkles
    🔥 fire`,
  ),
  group(
    "Things",
    `🎉 party popper
    🎂 cake
    ☕ coffee
    🍕 pizza
    🍎 apple
    🌧️ rain
    ☀️ sun
    🌈 rainbow
    🚀 rocket
    ⛵ sailing boat
    🚲 bicycle
    🏡 house
    💡 idea
    📎 paper clip
    📌 pin
    ✅ done
    ❌ cross
    ❓ question`,
  ),
];

const NAMES = new Map(GROUPS.flatMap((each) => each.emoji.map((emoji) => [emoji.text, emoji.name] as const)));

export const nameOfEmoji = (text: string): string => NAMES.get(text) ?? text;

// A literal with this flag would ask for a newer TypeScript target than the library has.
const ONLY_EMOJI = new RegExp("^(?:\\p{RGI_Emoji}\\s*){1,3}$", "v");

/** One to three emoji and nothing else are shown large. */
export const isOnlyEmoji = (text: string): boolean => text.length <= 40 && ONLY_EMOJI.test(text);
