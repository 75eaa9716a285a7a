//! Documents of the demo: a month of support tickets of a small company. All names are fictitious.

use mongodb::bson::{DateTime, Document, doc};

/// Query of the demo. It shares no word with the ticket that answers it; a test checks that.
pub(super) const QUESTION: &str = "my package never showed up";

/// A ticket: number, product, customer, owner, day of March 2024, subject, content.
type Ticket = (u32, &'static str, &'static str, &'static str, i64, &'static str, &'static str);

const TICKETS: [Ticket; 10] = [
    (
        1001,
        "Shop",
        "Oakfield Garden Centre",
        "ines@example.com",
        4,
        "Order still missing after two weeks",
        "The courier claims that our shipment was delivered on Tuesday, but nothing has arrived at the depot and nobody \
         here signed for it. Please trace it with the carrier or send a replacement.",
    ),
    (
        1002,
        "Billing",
        "Lindqvist Architects",
        "tomas@example.com",
        5,
        "Charged twice for February",
        "There are two identical debits on our card for the same subscription. We only have one account and would like \
         the second amount to be refunded.",
    ),
    (
        1003,
        "Identity",
        "Harbour Dental",
        "ines@example.com",
        6,
        "Cannot sign in since the phone was replaced",
        "Our receptionist got a new phone, and the one-time codes are refused. She is locked out and the recovery \
         address belongs to a colleague who has left.",
    ),
    (
        1004,
        "Atlas",
        "Mirador Travel",
        "grace@example.com",
        7,
        "Map tiles load slowly in the evening",
        "Between seven and nine in the evening it takes more than ten seconds until the map is drawn. In the morning \
         the same page is instant.",
    ),
    (
        1005,
        "Sales",
        "Brightwater Schools",
        "tomas@example.com",
        8,
        "Note from the call: wants to double the seats",
        "Forty more teachers join in September. They asked for a discount on a three-year contract and for an offer \
         before the board meets on the 21st.",
    ),
    (
        1006,
        "Billing",
        "Kestrel Print Works",
        "grace@example.com",
        11,
        "Invoice 3307 is 45 days overdue",
        "Two reminders went unanswered. Their accountant says that a purchase order number is missing on the document; \
         we should send it again with the number.",
    ),
    (
        1007,
        "Atlas",
        "Nordvik Ferries",
        "ines@example.com",
        12,
        "App closes itself when a photo is attached",
        "On the older tablets the program disappears without a message as soon as a picture from the camera is added \
         to a report. The newer ones are fine.",
    ),
    (
        1008,
        "Privacy",
        "Harbour Dental",
        "grace@example.com",
        13,
        "Please erase everything about a former patient",
        "A patient has asked for all personal data to be removed under the data protection law. We need a written \
         confirmation within thirty days.",
    ),
    (
        1009,
        "Sales",
        "Mirador Travel",
        "tomas@example.com",
        14,
        "Thinking about leaving at the end of the term",
        "The new director compared us with a cheaper vendor. What they like is the support; what they miss is an \
         export to spreadsheets. A visit before the renewal would help.",
    ),
    (
        1010,
        "Shop",
        "Oakfield Garden Centre",
        "grace@example.com",
        15,
        "Thank you for the quick help",
        "The replacement came the next morning and everything is in flower again. Do pass our thanks on to Ines.",
    ),
];

/// 1 March 2024, 09:00 UTC, in milliseconds since the Unix epoch.
const FIRST_OF_MARCH: i64 = 1_709_283_600_000;
const DAY: i64 = 86_400_000;

/// Returns the documents. Their ids are fixed, so that a second run inserts nothing.
pub(super) fn tickets() -> Vec<Document> {
    let document = |(number, product, customer, owner, day, subject, content): Ticket| {
        doc! {
            "_id": format!("T-{number}"),
            "product": product,
            "customer": customer,
            "owner": owner,
            "date": DateTime::from_millis(FIRST_OF_MARCH + (day - 1) * DAY),
            "subject": subject,
            "content": content,
        }
    };
    TICKETS.into_iter().map(document).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn words(text: &str) -> HashSet<String> {
        text.to_lowercase().split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn expected_answer_shares_no_word_with_the_query() {
        let (.., subject, content) = TICKETS[0];
        let shared: Vec<_> = words(QUESTION).intersection(&words(&format!("{subject} {content}"))).cloned().collect();
        assert!(shared.is_empty(), "{shared:?}");
    }

    #[test]
    fn tickets_have_unique_ids() {
        let ids: HashSet<_> = tickets().iter().map(|ticket| ticket.get_str("_id").unwrap().to_owned()).collect();
        assert_eq!(ids.len(), TICKETS.len());
        assert_eq!(tickets()[0].get_datetime("date").unwrap().try_to_rfc3339_string().unwrap(), "2024-03-04T09:00:00Z");
    }
}
