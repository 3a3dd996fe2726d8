/* The prompt of a run without arguments: a passage of War and Peace (Tolstoy, Maude translation, public
 * domain) with facts between its sentences, and questions for three of them. The facts are ones that the
 * model in the repository finds with full attention, which it does with about two in three. */
#include "prompt.h"

static const char *const passages[] = {
    "After supper Nicholas, having undressed in his study and given instructions to the "
    "steward who had been waiting for him, went to the bedroom in his dressing gown, where "
    "he found his wife still at her table, writing. “What are you writing, Mary?” ",
    "The code of the white goat is 6219. ",
    "Nicholas asked. Countess Mary blushed. She was afraid that what she was writing would "
    "not be understood or approved by her husband. She had wanted to conceal what she was "
    "writing from him, but at the same time was glad he had surprised her at it and that "
    "she would now have to tell him. “A diary, Nicholas,” she replied, handing him a blue "
    "exercise book filled with her firm, bold writing. “A diary?” Nicholas repeated with a "
    "shade of irony, and he took up the book. ",
    "The word of the proud hawk is leaf. ",
    "It was in French. December 4. Today when Andrúsha (her eldest boy) woke up he did not "
    "wish to dress and Mademoiselle Louise sent for me. He was naughty and obstinate. I "
    "tried threats, but he only grew angrier. Then I took the matter in hand: I left him "
    "alone and began with nurse’s help to get the other children up, telling him that I did "
    "not love him. For a long time he was silent, as if astonished, then he jumped out of "
    "bed, ran to me in his shirt, and sobbed so that I could not calm him for a long time. ",
    "The code of the green fox is 3439. ",
    "It was plain that what troubled him most was that he had grieved me. Afterwards in the "
    "evening when I gave him his ticket, he again began crying piteously and kissing me. "
    "One can do anything with him by tenderness. “What is a ‘ticket’?” Nicholas inquired. "
    "“I have begun giving the elder ones marks every evening, showing how they have "
    "behaved.” Nicholas looked into the radiant eyes that were gazing at him, and continued "
    "to turn over the pages and read. ",
    "The code of the brown crow is 1537. ",
    "In the diary was set down everything in the children’s lives that seemed noteworthy to "
    "their mother as showing their characters or suggesting general reflections on "
    "educational methods. They were for the most part quite insignificant trifles, but did "
    "not seem so to the mother or to the father either, now that he read this diary about "
    "his children for the first time. Under the date “5” was entered: Mítya was naughty at "
    "table. Papa said he was to have no pudding. He had none, but looked so unhappily and "
    "greedily at the others while they were eating! ",
    "The code of the black dog is 7993. ",
    "I think that punishment by depriving children of sweets only develops their "
    "greediness. Must tell Nicholas this. Nicholas put down the book and looked at his "
    "wife. The radiant eyes gazed at him questioningly: would he approve or disapprove of "
    "her diary? There could be no doubt not only of his approval but also of his admiration "
    "for his wife. Perhaps it need not be done so pedantically, thought Nicholas, or even "
    "done at all, but this untiring, continual spiritual effort of which the sole aim was "
    "the children’s moral welfare delighted him. ",
    "The code of the young rat is 0464. ",
    "Had Nicholas been able to analyze his feelings he would have found that his steady, "
    "tender, and proud love of his wife rested on his feeling of wonder at her spirituality "
    "and at the lofty moral world, almost beyond his reach, in which she had her being. He "
    "was proud of her intelligence and goodness, recognized his own insignificance beside "
    "her in the spiritual world, and rejoiced all the more that she with such a soul not "
    "only belonged to him but was part of himself. ",
    "The word of the old frog is lamp. ",
    "“I quite, quite approve, my dearest!” said he with a significant look, and after a "
    "short pause he added: “And I behaved badly today. You weren’t in the study. We began "
    "disputing—Pierre and I—and I lost my temper. But he is impossible: such a child! I "
    "don’t know what would become of him if Natásha didn’t keep him in hand.... Have you "
    "any idea why he went to Petersburg? They have formed...” “Yes, I know,” said Countess "
    "Mary. ",
    "The code of the young bear is 6386. ",
    "“Natásha told me.” “Well, then, you know,” Nicholas went on, growing hot at the mere "
    "recollection of their discussion, “he wanted to convince me that it is every honest "
    "man’s duty to go against the government, and that the oath of allegiance and duty... I "
    "am sorry you weren’t there. They all fell on me—Denísov and Natásha... ",
};

static const planted_question questions[] = {
    {"Question: the code of the green fox is", "3439"},
    {" Question: the word of the old frog is", "lamp"},
    {" Question: the code of the white goat is", "6219"},
};

const char *const *prompt_passages(uint32_t *count) {
  *count = sizeof passages / sizeof *passages;
  return passages;
}

const planted_question *prompt_questions(uint32_t *count) {
  *count = sizeof questions / sizeof *questions;
  return questions;
}
